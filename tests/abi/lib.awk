# SPDX-License-Identifier: Apache-2.0
# Reads public headers and writes, by `mode`:
#   layout      a C program that prints every public structure's size and each member's offset and size, and every enumerator's value
#   prototypes  one line for each exported function
# The headers are simple C on purpose; what this does not understand, it says and exits with 1.
function trim(s) { gsub(/[ \t\n]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s); return s }
# Names declared by one declaration (no function pointers), into names[1..]; returns how many.
function declared(text, names,    n, parts, i, k) {
    k = 0
    n = split(text, parts, ",")
    for (i = 1; i <= n; i++) {
        gsub(/\[[^\]]*\]/, "", parts[i])
        parts[i] = trim(parts[i])
        if (!match(parts[i], /[A-Za-z_][A-Za-z_0-9]*$/)) { print "not understood: " text > "/dev/stderr"; bad = 1; return 0 }
        names[++k] = substr(parts[i], RSTART)
    }
    return k
}
function member(s, text,    names, n, i) {
    text = trim(text)
    if (text == "") return
    if (match(text, /\( *\* *[a-z_0-9]+/)) { # a pointer to a function, or an array of them
        text = substr(text, RSTART, RLENGTH)
        sub(/^\( *\* */, "", text)
        n = 1
        names[1] = text
    } else
        n = declared(text, names)
    for (i = 1; i <= n; i++)
        printf "    M(%s, %s)\n", s, names[i]
}
function struct_of(name, body,    n, parts, i, depth, c, part) {
    printf "    S(%s)\n", name
    part = ""
    depth = 0
    n = length(body)
    for (i = 1; i <= n; i++) {
        c = substr(body, i, 1)
        depth += (c == "(") - (c == ")")
        if (c == ";" && depth == 0) { member(name, part); part = "" } else part = part c
    }
}
function enum_of(name, body,    n, parts, i, e) {
    n = split(body, parts, ",")
    for (i = 1; i <= n; i++) {
        e = trim(parts[i])
        sub(/ *=.*/, "", e)
        if (e ~ /^[A-Z][A-Z_0-9]*$/) printf "    E(%s, %s)\n", (name == "" ? "enum" : name), e
    }
}
{ sub(/\r$/, ""); if ($0 !~ /^[ \t]*#/ && !continued) all = all $0 "\n"; continued = ($0 ~ /\\$/) && ($0 ~ /^[ \t]*#/ || continued) }
END {
    while (match(all, /\/\*([^*]|\*+[^*\/])*\*+\//)) all = substr(all, 1, RSTART - 1) " " substr(all, RSTART + RLENGTH)
    if (mode == "prototypes") {
        n = split(all, parts, ";")
        for (i = 1; i <= n; i++) {
            p = trim(parts[i])
            if (!match(p, /MEST_API /)) continue
            p = trim(substr(p, RSTART + RLENGTH))
            if (p ~ /mest_scheduler_entry/) continue # exported by plugins
            print p
        }
        exit bad
    }
    rest = all
    while (match(rest, /typedef (struct|enum)( [a-z_0-9]+)? *\{/)) {
        head = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        end = index(rest, "}")
        body = substr(rest, 1, end - 1)
        rest = substr(rest, end + 1)
        match(rest, /^ *[a-z_0-9]+ *;/)
        name = trim(substr(rest, RSTART, RLENGTH - 1))
        if (head ~ /struct/) struct_of(name, body); else enum_of(name, body)
    }
    rest = all
    while (match(rest, /(^|\n)struct [a-z_0-9]+ *\{/)) { # declared before, defined here
        head = trim(substr(rest, RSTART, RLENGTH - 1))
        rest = substr(rest, RSTART + RLENGTH)
        end = index(rest, "\n}")
        sub(/^struct /, "", head)
        struct_of(head, substr(rest, 1, end))
        rest = substr(rest, end + 1)
    }
    exit bad
}
