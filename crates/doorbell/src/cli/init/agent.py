# An agent that needs nothing but Python: it says what it was started for, and writes a result.
#
# It is handed the prompt on standard input, the whole event as JSON in the file $DOORBELL_EVENT_FILE, and the run's id
# in $DOORBELL_RUN_ID. What it prints is the run's log. Exit 0 is success, 75 asks for another try, all else is failure.
import json
import os
import sys

prompt = sys.stdin.read()
with open(os.environ["DOORBELL_EVENT_FILE"], encoding="utf-8") as file:
    event = json.load(file)

# The event comes from outside: use what is in it, and never execute it.
context = event["context"]
print(f"run {os.environ['DOORBELL_RUN_ID']}: {event['event_type']} in {context.get('repo', 'no repository')}")
print(f"the prompt has {len(prompt.splitlines())} lines")

with open(os.environ["DOORBELL_OUTPUT_FILE"], "w", encoding="utf-8") as file:
    json.dump({"seen": event["event_type"], "repo": context.get("repo")}, file)
