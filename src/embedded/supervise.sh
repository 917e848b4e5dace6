# Runs a program of PostgreSQL and stops it when the process that owns it ends. See supervised_process.rs.
#
#   sh supervise.sh SIGNAL ENDED TEMPORARY PROGRAM [ARGUMENT]...
#
# SIGNAL     the signal that stops the program
# ENDED      the file for the program's exit status
# TEMPORARY  a directory to remove at the end, or an empty string
#
# Standard input is a pipe whose other end only the owner holds: `read` returns when that end is closed.

# Ignores signals to all processes of a terminal or of the machine: only the owner's end matters.
trap '' HUP INT QUIT TERM
signal=$1 ended=$2 temporary=$3
shift 3
exec 3<&0

"$@" </dev/null 3<&- &
program=$!

# A server that has not stopped after 15 seconds is shut down immediately. No data is lost: its next start recovers.
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

# Waits for the owner even if the program has ended by itself: the owner may want to use the directory again.
read -r order <&3
rm -f -- "$ended"
[ "$order" = keep ] || [ -z "$temporary" ] || rm -rf -- "$temporary"
