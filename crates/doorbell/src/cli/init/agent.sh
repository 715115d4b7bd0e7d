#!/bin/sh
# An agent that needs nothing but sh: it says what it was started for, and writes a result.
#
# It is handed the prompt on standard input, the whole event as JSON in the file $DOORBELL_EVENT_FILE, and the run's id
# in $DOORBELL_RUN_ID. What it prints is the run's log. Exit 0 is success, 75 asks for another try, all else is failure.
set -eu

prompt_lines=$(wc -l | tr -d ' ')

# The event comes from outside. So only what looks like a name is taken from it, and nothing of it is ever executed.
field() {
    grep -o "\"$1\": *\"[A-Za-z0-9._/-]*\"" "$DOORBELL_EVENT_FILE" | head -n 1 | cut -d '"' -f 4
}
event=$(field event_type)
repo=$(field repo)

echo "run $DOORBELL_RUN_ID: $event in ${repo:-no repository}"
echo "the prompt has $prompt_lines lines"

printf '{"seen": "%s", "repo": "%s"}\n' "$event" "$repo" > "$DOORBELL_OUTPUT_FILE"
