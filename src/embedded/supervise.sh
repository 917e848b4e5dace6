# Runs a program of PostgreSQL's, and stops it when the process that owns it is gone. See supervisor.rs.
#
#   sh supervise.sh SIGNAL ENDED TEMPORARY PROGRAM [ARGUMENT]...
#
# SIGNAL     what stops the program
# ENDED      the file that the program's exit status goes to
# TEMPORARY  a directory to remove in the end, or nothing
#
# Standard input is a pipe that only the owner holds the other end of: `read` returns when that end is closed.

# Signals to all processes of a terminal, or of the machine, do not concern this script: only its owner's end does.
trap '' HUP INT QUIT TERM
signal=$1 ended=$2 temporary=$3
shift 3
exec 3<&0

"$@" </dev/null 3<&- &
program=$!

# A server that is not gone after 15 seconds is shut down immediately. That loses nothing: its next start recovers.
(
    read -r order <&3
    kill -s "$signal" "$program"
    tenths=0
    while [ "$tenths" -lt 150 ] && kill -s 0 "$program"; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
    kill -s QUIT "$program"
) 2>/dev/null &
watch=$!

wait "$program"
status=$?
kill -s KILL "$watch"
wait "$watch" 2>/dev/null
echo "$status" >"$ended"

# Also after a program that has ended by itself: an owner that lets go of it may want to use its directory again.
read -r order <&3
rm -f -- "$ended"
[ "$order" = keep ] || [ -z "$temporary" ] || rm -rf -- "$temporary"
