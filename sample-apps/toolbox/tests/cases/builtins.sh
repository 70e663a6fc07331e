#### echo
echo a  b 'c  d'; echo; echo -n x; echo y
#### echo with dashes
echo - -- -x
#### echo escapes [ash]
echo 'a\tb'; echo -e 'a\tb\x41\0101\c' ; echo
#### printf strings
printf '%s\n' a 'b c'; printf '%s-%s\n' 1 2 3
#### printf numbers
printf '%d %i %5d|%-5d|%05d|%+d\n' 42 -7 42 42 42 42
#### printf bases
printf '%x %X %o %u %#x %#o\n' 255 255 8 7 255 8
#### printf escapes
printf 'a\tb\nc\\ \101 \x41\n'
#### printf %b
printf '%b|' 'a\tb' 'c\n' 'x\0101'; echo
#### printf %c and %%
printf '%c%c%%\n' abc d
#### printf precision
printf '%.2s|%5s|%-5s|%5.1s|\n' abc ab ab ab
#### printf star
printf '%*d|%-*d|%.*s\n' 5 42 5 42 2 abc
#### printf missing arguments [dash]
printf '%s|%d|\n'
#### printf reuses the format
printf '<%s>' a b c; echo
#### printf invalid number
printf '%d\n' abc; echo $?
#### printf trailing garbage [dash]
printf '%d\n' 12x; echo $?
#### printf character value
printf '%d %d\n' "'A" '"B'
#### printf octal and hexadecimal arguments
printf '%d %d\n' 010 0x10
#### printf floats
printf '%f %.2f %e %g %g\n' 1.5 2.345 12345.678 0.0001 1000000
#### printf without arguments
printf; [ $? -ne 0 ] && echo failed
#### printf stops at \c in %b
printf '%b%s' 'a\c' no; echo
#### printf invalid directive [dash]
printf '%z\n' a; [ $? -ne 0 ] && echo failed
#### test strings
[ a = a ] && echo 1; [ a != b ] && echo 2; [ -n x ] && echo 3; [ -z '' ] && echo 4; [ x ] && echo 5; [ '' ] || echo 6
#### test numbers
[ 1 -eq 1 ] && [ 1 -ne 2 ] && [ 1 -lt 2 ] && [ 2 -le 2 ] && [ 3 -gt 2 ] && [ 3 -ge 3 ] && echo ok
#### test files
touch f; echo x > g; mkdir d; [ -f f ] && [ -d d ] && [ -e f ] && [ ! -e no ] && [ -s g ] && [ ! -s f ] && echo ok
#### test access
echo x > f; [ -r f ] && [ -w f ] && [ ! -x f ] && echo ok
#### test logic
[ a = a -a b = b ] && echo 1; [ a = b -o b = b ] && echo 2; [ ! a = b ] && echo 3
#### test parentheses
[ \( a = a \) -a \( b = c -o d = d \) ] && echo ok
#### test without operands
test; echo $?; [ ]; echo $?
#### test one operand that looks like an operator
[ -n ] && echo 1; [ = ] && echo 2; [ ! ] && echo 3; [ -f ] && echo 4
#### test not empty
[ ! '' ] && echo ok
#### test missing bracket
[ a = a; echo $?
#### test bad number
[ a -eq 1 ]; echo $?
#### test unknown operand
[ a b ]; echo $?
#### test newer
touch -d '2020-01-01' old; touch new; [ new -nt old ] && [ old -ot new ] && echo ok
#### test symlink
touch f; ln -s f l; [ -L l ] && [ -h l ] && [ ! -L f ] && echo ok
#### test same file
touch f; ln -s f l; [ f -ef l ] && echo same
#### test strings with operators as operands
[ '(' = '(' ] && echo 1; [ '!' = '!' ] && echo 2; [ -f = -f ] && echo 3
#### double brackets [ash]
touch f; [[ -r f ]] && echo yes; [[ a == a && b != c ]] && echo both
#### read
echo 'a b c' | { read x y; echo "$x|$y"; }
#### read more variables than words
echo 'a b' | { read x y z; echo "$x|$y|$z|"; }
#### read backslash
printf 'a\\b\\\nc\n' | { read x; echo "$x"; }
#### read raw
printf 'a\\b\\\nc\n' | { read -r x; printf '%s\n' "$x"; }
#### read with IFS
echo 'a:b:c:d' | { IFS=: read x y; echo "$x|$y"; }
#### read keeps blanks with empty IFS
echo '  a  b ' | { IFS= read -r x; echo "[$x]"; }
#### read trims blanks
echo '  a  b  ' | { read x; echo "[$x]"; }
#### read at end
read x < /dev/null; echo $? "[$x]"
#### read last line without newline
printf 'a\nb' | while read x || [ -n "$x" ]; do echo "<$x>"; done
#### read empty fields
echo 'a::b' | { IFS=: read x y z; echo "$x|$y|$z"; }
#### read trailing separator
echo 'a:b:' | { IFS=: read x y; echo "$x|$y"; }
#### read line by line
printf '1\n2\n' > f; { read a; read b; } < f; echo $a $b
#### read count [ash]
echo abcdef | { read -n 3 x; echo $x; }
#### read timeout [ash]
sleep 2 | { read -t 0.1 x; [ $? -ne 0 ] && echo timeout; }
#### read into bad name
echo a | read 1x; echo $?
#### getopts
set -- -a -b val rest; while getopts ab: o; do echo "$o ${OPTARG-none}"; done; echo $OPTIND
#### getopts joined
set -- -abval x; while getopts ab: o; do echo "$o ${OPTARG-none}"; done; echo $OPTIND
#### getopts unknown option
set -- -z; while getopts a o; do echo "$o"; done
#### getopts silent
set -- -z -b; while getopts :ab: o; do echo "$o $OPTARG"; done
#### getopts missing argument
set -- -b; while getopts b: o; do echo "$o"; done
#### getopts double dash
set -- -a -- -b; while getopts ab o; do echo $o; done; shift $((OPTIND-1)); echo $*
#### getopts reset
f() { OPTIND=1; while getopts x o; do echo $o; done; }; f -x; f -x
#### getopts with explicit arguments
while getopts ab o -a -b; do echo $o; done
#### export
export x=1; sh -c 'echo $x'; y=2; sh -c 'echo "[$y]"'
#### export later
x=1; export x; sh -c 'echo $x'
#### export does not split [ash]
v='a b'; export x=$v; echo "$x"
#### readonly does not split [ash]
v='a b'; readonly x=$v; echo "$x"
#### export bad name
export 1x; echo not reached
#### readonly list
readonly r=1; readonly -p | grep ' r='
#### export list
export zz='a b'; export -p | grep ' zz='
#### set lists
zz='a b'; set | grep '^zz='
#### set quotes
zz="it's"; set | grep '^zz='
#### cd and pwd
mkdir d; cd d; pwd | sed 's,.*/,,'; cd ..; pwd | grep -c '/d$'
#### cd dash
mkdir d; cd d; cd - | grep -c '/d$'
#### cd home
mkdir h; HOME=$PWD/h; cd; pwd | sed 's,.*/,,'
#### cd missing
cd missing; echo $?
#### cd to a file
touch f; cd f; echo $?
#### cd dot dot
mkdir -p a/b; cd a/b/..; pwd | sed 's,.*/,,'
#### OLDPWD
mkdir d; o=$PWD; cd d; [ "$OLDPWD" = "$o" ] && echo ok
#### umask
umask 027; umask; umask -S
#### umask symbolic
umask 022; umask g-w,o=; umask
#### type
type echo; type if; f() { :; }; type f >/dev/null; echo $?
#### type of unknown
type no_such_thing_x; echo $?
#### command v
command -v echo; command -v if; f() { :; }; command -v f; command -v no_such_x; echo $?
#### command v of alias
alias e='echo x'
command -v e
#### command not found
command no_such_x; echo $?
#### command with builtin
command echo hi; command true; echo $?
#### command keeps shell alive
command . ./missing; echo $?
#### exec replaces
exec echo gone; echo no
#### exec not found
exec no_such_x; echo no
#### exec in subshell
(exec echo sub); echo after
#### exit status
(exit 0); echo $?; (exit 255); echo $?; (exit 256); echo $?
#### exit uses last status
(false; exit); echo $?
#### exit bad number
(exit abc); echo $?
#### times
times | wc -l
#### hash
hash -r; echo $?
#### unset several
a=1 b=2; unset a b; echo "[$a$b]"
#### unset bad name
unset 1x; echo not reached
#### dollar dollar in subshell
[ $$ = $(echo $$) ] && echo same
#### set o
set -o | grep -c errexit
#### set plus o
set -e; set +o | grep errexit
#### set bad option [dash]
set -o nonsense; echo not reached
#### shift bad
shift abc; echo not reached
#### wait bad operand
wait abc; echo $?
#### ulimit prints
ulimit -n > /dev/null; echo $?
