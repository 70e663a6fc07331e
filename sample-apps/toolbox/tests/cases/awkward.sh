#### unclosed single quote
echo 'abc
#### unclosed double quote
echo "abc
#### unclosed backtick
echo `abc
#### unclosed substitution
echo $(abc
#### unclosed brace
echo ${abc
#### unclosed arithmetic
echo $((1+2
#### unclosed if
if true; then echo a
#### unclosed loop
while true; do echo a
#### unclosed case
case a in a) echo b
#### unclosed group
{ echo a
#### unclosed parenthesis
(echo a
#### unexpected fi
echo a; fi
#### unexpected done
done
#### unexpected parenthesis
echo a )
#### unexpected then
then
#### double semicolon
echo a;; echo b
#### leading semicolon
; echo a
#### leading pipe
| cat
#### pipe at end
echo a |
#### and at end
true &&
#### ampersand twice
echo a & & echo b
#### empty then
if true; then fi
#### empty group
{ }
#### empty subshell
( )
#### missing redirection target
echo a >
#### redirection to operator
echo a > ; echo b
#### bad for name
for 1x in a; do echo; done
#### for without do
for i in a; echo $i; done
#### missing in
case x y) echo;; esac
#### function without body
f()
#### function with bad name
f/g() { echo x; }
#### unterminated here document
cat <<E
abc
#### syntax error stops before anything on the line runs
echo no; fi
#### lines before a syntax error ran
echo yes
fi
#### syntax error in eval ends the shell
eval 'fi'; echo no
#### syntax error in subshell of sh
sh -c 'fi'; echo $?
#### syntax error in substitution
echo $(fi); echo no
#### binary in argument
printf 'a\001b\377c' | od -An -tx1
#### binary through variable
x=$(printf 'a\001b'); printf %s "$x" | od -An -tx1
#### nul is dropped in substitution [ash]
x=$(printf 'a\000b'); printf %s "$x" | od -An -tx1
#### very long word
x=$(printf '%065536d' 0); echo ${#x}
#### very long line through a pipe
printf '%0262144d' 0 | wc -c
#### read a long line
printf '%0100000d\n' 7 | { read x; echo ${#x}; }
#### many arguments
set -- $(seq 1 5000); echo $#
#### deep nesting of groups
{ { { { { { { { { { echo deep; }; }; }; }; }; }; }; }; }; }
#### deep recursion of functions
f() { [ $1 -eq 0 ] && { echo bottom; return; }; f $(($1-1)); }; f 200
#### broken pipe is quiet
(while :; do echo y; done) | head -1; echo $?
#### writing to a closed stdout
echo x >&-; echo $?
#### empty command name
''; echo $?
#### a name with a slash at the end
nothing/; echo $?
#### dots as command
..; echo $?
#### only a redirection of a missing file
< missing; echo $?
#### assignment with bad name is a command
1x=2; echo $?
#### equals at the start
=x; echo $?
#### unicode
x=äöü; echo $x "${x#ä}"
#### carriage return
printf 'a\r\n' | { read x; printf %s "$x" | od -An -c; }
#### kill without operands
kill; [ $? -ne 0 ] && echo failed
#### return outside a function
(return 3; echo no); echo $?
#### exit with too many digits [dash]
(exit 99999999999999999999); [ $? -ne 0 ] && echo failed
#### huge shift [dash]
set -- a; shift 99999999999999999999; echo not reached
#### huge descriptor [dash]
echo x 3>&99999999999; echo end
#### break with zero
for i in 1 2; do break 0; done; echo not reached
#### readonly for variable
readonly i=1; for i in a; do echo no; done; echo not reached
#### readonly read variable
readonly r=1; echo a > f; read r < f; echo not reached
#### readonly getopts
readonly o=1; set -- -a; getopts a o; echo not reached
