# Sourced by the scripts beside it: what is to be a number is checked before bash computes with it, which would
# run the commands in PATH[$(...)].
#     count NAME LEAST MOST    ends the script where the variable NAME, if there is one, is no such whole number
count() {
    local value=${!1:-$2}
    if ! [[ $value =~ ^(0|[1-9][0-9]{0,8})$ ]] || [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ]; then
        printf 'cae_mm: %s=%q is no whole number from %s to %s\n' "$1" "$value" "$2" "$3" >&2
        exit 2
    fi
}
