#### and
true && echo yes; false && echo no; echo $?
#### or
false || echo yes; true || echo no; echo $?
#### mixed left to right
false && echo a || echo b; true || echo c && echo d
#### not
! true; echo $?; ! false; echo $?
#### not with pipeline
! true | false; echo $?
#### pipeline status
true | false; echo $?; false | true; echo $?
#### pipefail [ash]
set -o pipefail; false | true; echo $?
#### three commands
echo abc | tr a x | tr b y
#### pipeline across lines
echo a |
cat
#### and across lines
true &&
echo yes
#### semicolons
echo a; echo b;
#### group
{ echo a; echo b; }; echo c
#### group affects shell
{ x=1; }; echo $x
#### subshell does not
(x=1); echo "[$x]"
#### subshell status
(exit 3); echo $?
#### subshell in pipeline
(echo a; echo b) | cat
#### nested subshells
( ( (echo deep) ) )
#### subshell cd
mkdir d; (cd d); pwd | sed 's,.*/,,' | grep -c '^d$'
#### subshell inherits functions
f() { echo f; }; (f)
#### group in pipeline
{ echo b; echo a; } | sort
#### yes ends with its reader
yes | head -2
#### endless builtin loop ends with its reader
while :; do echo y; done | head -2
#### exit in pipeline leaves only its part
exit 3 | true; echo here $?
#### status of background list
false & echo $?
#### background and wait
{ echo bg; exit 3; } & wait $!; echo $?
#### wait without operands
(exit 1) & (exit 2) & wait; echo $?
#### wait for unknown process
wait 999999; echo $?
#### background order
sleep 0.2 & wait; echo done
#### two jobs in parallel
{ sleep 0.2; echo second; } & { echo first; } & wait
#### background reads nothing
cat & wait; echo $?
#### last job changes
true & a=$!; true & [ $a != $! ] && echo differ; wait
#### job and variables
x=1; { x=2; echo $x; } & wait; echo $x
#### kill a job
sleep 10 & kill $!; wait $!; echo $?
#### kill with signal number
sleep 10 & kill -9 $!; wait $!; echo $?
#### kill zero tests
sleep 10 & kill -0 $! && echo alive; kill $!; wait; echo
#### kill unknown
kill 999999; echo $?
#### kill lists a name
kill -l 15; kill -l 143
#### pipeline in background
echo a | cat & wait
#### colon
: ignored arguments; echo $?
#### true and false
true; echo $?; false; echo $?
#### command not found
no_such_command_x; echo $?
#### not found in pipeline
no_such_command_x | cat; echo $?
#### not found path
./nothing; echo $?
#### a folder is no command
mkdir d; ./d; echo $?
#### not executable
echo 'echo hi' > s; ./s; echo $?
#### script file
printf 'echo script $1 $#\n' > s; chmod +x s; ./s a b; echo $?
#### script with interpreter
printf '#!/bin/sh\necho "$1"; exit 4\n' > s; chmod +x s; ./s x; echo $?
#### sh with file
echo 'echo $0 $1; exit 5' > s; sh s arg; echo $?
#### sh of missing file
sh missing; echo $?
#### sh -c with name
sh -c 'echo $0 $1 $#' name a b
#### sh -s
echo 'echo $1 $2' | sh -s x y
#### sh reads stdin
printf 'echo a\necho "$1"\n' | sh -s x
#### exit status of sh
sh -c 'exit 7'; echo $?
#### empty command
sh -c ''; echo $?
#### only comment
sh -c '# nothing'; echo $?
