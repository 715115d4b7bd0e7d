#!/bin/sh
# Runs an agent in a fresh checkout of the event's repository, and takes the checkout away when the agent has ended.
#
#     [runtime]
#     type = "command"
#     command = ["sh", "checkout.sh", "claude", "--print", …]      # `doorbell config` shows the command of a preset
#     cwd = "."                                                     # where checkout.sh and its cache are: the project
#     credentials = ["github_token:acme"]                           # for private repositories
#     [runtime.env]
#     CHECKOUT_REPO = "{{ event.context.repo }}"                    # owner/name
#     CHECKOUT_BRANCH = "{{ event.context.branch }}"                # empty: the repository's default branch
#
# Also understood: CHECKOUT_FROM (where repositories are, default https://github.com) and CHECKOUT_CACHE (where they are
# kept between runs, default .doorbell/checkouts). Needs git 2.31 or newer and flock (util-linux).
#
# Each repository is fetched into one bare clone; each run gets a worktree of it in its own folder, on no branch, so that
# any number of runs can work at once. What the agent does not push is gone afterwards.
#
# Only branches of the repository itself are checked out, never those of forks: files such as .claude/settings.json,
# .gemini/settings.json or AGENTS.md command an agent, so only who may push may write them. Names come from outside and
# are checked before git sees them; nothing of them is executed.
set -eu

fail() {
    echo "checkout: $1" >&2
    exit "${2:-1}"
}

[ $# -gt 0 ] || fail "say what to run: sh checkout.sh COMMAND ARGUMENT…"
repo=${CHECKOUT_REPO:-}
branch=${CHECKOUT_BRANCH:-}
from=${CHECKOUT_FROM:-https://github.com}
cache=${CHECKOUT_CACHE:-.doorbell/checkouts}

# owner/name, of plain characters, neither of them a path or an option. A name may begin with a dot (owner/.github).
case "$repo" in
*[!A-Za-z0-9._/-]* | */*/* | /* | */ | -* | */-* | .* | */. | */..) fail "not the name of a repository: CHECKOUT_REPO" ;;
*/*) ;;
*) fail "CHECKOUT_REPO is to be owner/name: set it in [runtime.env]" ;;
esac
if [ -n "$branch" ]; then
    case "$branch" in -*) fail "not the name of a branch: CHECKOUT_BRANCH" ;; esac
    git check-ref-format "refs/heads/$branch" || fail "not the name of a branch: CHECKOUT_BRANCH"
fi

# The token is read from the environment when git asks for it, and for no other place than this: it is in no argument, no
# URL and no file. The agent's own git gets it the same way. Hooks of the shared clone are off: one run could leave them
# for the next.
export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_COUNT=3
export GIT_CONFIG_KEY_0=core.hooksPath GIT_CONFIG_VALUE_0=/dev/null
# First an empty one, which forgets the helpers of this user.
export GIT_CONFIG_KEY_1=credential.$from.helper GIT_CONFIG_VALUE_1=
export GIT_CONFIG_KEY_2=credential.$from.helper
# shellcheck disable=SC2016 # git expands it when it asks
export GIT_CONFIG_VALUE_2='!f() { [ "$1" = get ] && [ -n "${GITHUB_TOKEN:-}" ] && printf "username=x-access-token\npassword=%s\n" "$GITHUB_TOKEN"; }; f'

mkdir -p "$cache/${repo%/*}"
cache=$(cd "$cache" && pwd)
clone=$cache/$repo.git
run=$(dirname "$DOORBELL_EVENT_FILE")
work=$run/checkout
# What is fetched has a name only while the lock is held; then the worktree holds it.
ref=refs/doorbell/fetched

# One at a time for each repository. The lock goes with its process, however that ends.
exclusively() {
    (
        flock 9
        "$@"
    ) 9>"$clone.lock" </dev/null >&2
}

# 75 asks Doorbell for another try: the network may be back by then.
prepare() {
    if ! git -C "$clone" rev-parse --git-dir >/dev/null 2>&1; then
        # What a clone that was killed has left.
        rm -rf "$clone" "$clone.new"
        git clone --quiet --bare -- "$from/$repo.git" "$clone.new" || fail "cannot clone $repo" 75
        mv "$clone.new" "$clone"
    fi
    remove
    wanted=HEAD
    [ -z "$branch" ] || wanted=refs/heads/$branch
    found=0
    git -C "$clone" ls-remote --exit-code origin "$wanted" >/dev/null || found=$?
    case $found in
    0) ;;
    2) fail "$repo has no branch $branch: it is gone, or it is a fork's" ;;
    *) fail "cannot reach $repo" 75 ;;
    esac
    git -C "$clone" fetch --quiet --no-tags origin "+$wanted:$ref" || fail "cannot fetch $wanted of $repo" 75
    git -C "$clone" worktree add --quiet --detach "$work" "$ref" || fail "cannot make $work" 75
}

# Of this run, and of runs that were killed and whose folders are gone.
remove() {
    rm -rf "$work"
    [ -d "$clone" ] || return 0
    # git locks a worktree while it makes it, and keeps it locked if it is killed then. Here nobody else makes one.
    rm -f "$clone"/worktrees/*/locked
    git -C "$clone" worktree prune
}

# A timeout or a cancel reaches the agent, too: it ends, and then this goes on here.
trap 'exit 143' TERM INT HUP
trap 'exclusively remove || true' EXIT
exclusively prepare || exit $?

code=0
(cd "$work" && exec "$@") || code=$?
exit "$code"
