#### output is inserted
echo a $(echo b) c
#### backticks
echo `echo a` "`echo b  c`"
#### nested backticks
echo `echo \`echo deep\``
#### nested dollar parentheses
echo $(echo $(echo $(echo x)))
#### trailing newlines go
x=$(printf 'a\n\n\n'); echo "[$x]"
#### inner newlines stay
x=$(printf 'a\nb\n'); echo "$x"
#### unquoted is split
set -- $(echo a b   c); echo $#
#### quoted is not split
set -- "$(echo a b   c)"; echo $# "$1"
#### status of assignment
x=$(exit 3); echo $?
#### status of command with substitution
echo $(exit 3); echo $?
#### status of last assignment
x=$(exit 3) y=$(exit 4); echo $?
#### assignment without substitution resets status
false; x=1; echo $?
#### variables do not leak
x=1; y=$(x=2; echo $x); echo $x $y
#### cd does not leak
mkdir d; x=$(cd d; echo in); pwd | sed 's,.*/,,' | grep -c '^d$'
#### exit in substitution
x=$(echo a; exit 2; echo b); echo $x $?
#### empty substitution
x=$(); echo "[$x]" $?
#### quotes inside
echo "$(echo 'a"b')" "$(echo "c'd")"
#### case inside
echo $(case x in x) echo yes;; esac)
#### case with parenthesis inside
echo $(case x in (x) echo yes;; esac)
#### here document inside
x=$(cat <<E
in $((1+1))
E
); echo "$x"
#### comment inside
echo $(echo a # comment )
)
#### backslash in backticks
echo `echo \\\\a` '`' `echo "\$HOME" | sed 's,.*,x,'`
#### dollar in backticks
x=v; echo `echo $x \$x '$x'`
#### stderr is not caught
x=$(echo err >&2); echo "[$x]"
#### function output
f() { echo out; }; echo "<$(f)>"
#### multi line substitution
echo $(
echo a
echo b
)
#### word splitting in for
for i in $(echo 1 2 3); do echo "<$i>"; done
#### substitution as command
$(echo echo hi)
#### empty substitution as command
$(true); echo $?; $(false); echo $?
#### pipeline in substitution
echo $(echo abc | tr a-c A-C)
#### positional parameters visible
set -- p q; echo $(echo $2 $#)
#### exit status of pipeline in substitution
x=$(true | false); echo $?
