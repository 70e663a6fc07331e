#### default for unset
echo ${x-d} ${x:-e}
#### default for null
x=; echo "[${x-d}]" "[${x:-e}]"
#### default not used
x=v; echo ${x-d} ${x:-e}
#### assign default
echo ${x=d} $x
#### assign default for null
x=; echo ${x:=e} $x
#### alternative
x=v; echo "[${x+a}]" "[${y+a}]"
#### alternative with null
x=; echo "[${x+a}]" "[${x:+a}]"
#### length
x=hello; echo ${#x} ${#y}
#### length of positional count
set -- a b c; echo ${#} $# ${#@}
#### remove smallest prefix
x=/a/b/c; echo ${x#*/}
#### remove largest prefix
x=/a/b/c; echo ${x##*/}
#### remove smallest suffix
x=a.b.c; echo ${x%.*}
#### remove largest suffix
x=a.b.c; echo ${x%%.*}
#### prefix does not match
x=abc; echo ${x#z} ${x%z}
#### quoted pattern is literal
x='*a*'; echo "${x#'*'}" "${x#"*"}"
#### pattern from variable
p='*b'; x=abc; echo ${x#$p} "${x#"$p"}"
#### bracket in pattern
x=a1b2; echo ${x##*[0-9]} ${x%%[0-9]*}
#### nested expansion in default
y=2; echo ${x:-${y:-3}}
#### command substitution in default
echo ${x:-$(echo sub)}
#### positional parameters
set -- a b c; echo $1 $2 $3 $4
#### two digit positional
set -- 1 2 3 4 5 6 7 8 9 ten; echo ${10} $10
#### at and star unquoted
set -- 'a b' c; for i in $@; do echo "<$i>"; done; for i in $*; do echo "<$i>"; done
#### at quoted
set -- 'a b' '' c; for i in "$@"; do echo "<$i>"; done
#### star quoted
set -- 'a b' c; for i in "$*"; do echo "<$i>"; done
#### star quoted with IFS
IFS=:; set -- a b c; echo "$*"
#### star quoted with empty IFS
IFS=; set -- a b c; echo "$*"
#### at quoted without parameters
set --; for i in "$@"; do echo "<$i>"; done; echo end
#### at quoted with surroundings
set -- a b; for i in "x$@y"; do echo "<$i>"; done
#### at without parameters beside text
set --; for i in "x$@"; do echo "<$i>"; done
#### empty at beside empty quotes
set --; for i in ""$@; do echo "<$i>"; done
#### exit status parameter
false; echo $?; true; echo $?
#### dash parameter holds options
set -f; case $- in *f*) echo yes;; esac
#### zero is the shell
echo $0
#### shift
set -- a b c; shift; echo $* $#; shift 2; echo "[$*]" $#
#### shift too far
set -- a; shift 2; echo $? $#
#### set dash dash clears
set -- a b; set --; echo $#
#### set with dash argument
set -- -x y; echo $1 $#
#### error if unset
echo ${x?}; echo not reached
#### error with message
echo ${x:?gone wrong}; echo not reached
#### error if null
x=; echo ${x:?}; echo not reached
#### error in subshell
(echo ${x?msg}); echo $?
#### bad substitution
echo ${x!y}; echo not reached
#### nounset
set -u; echo $x; echo not reached
#### nounset with default
set -u; echo ${x-fine} ${x+bad}; echo ok
#### nounset at
set -u; set --; echo "$@" $* ok
#### replace first [ash]
x=banana; echo ${x/a/o}
#### replace all [ash]
x=banana; echo ${x//a/o} ${x//an/} ${x//[bn]/_}
#### replace with slash [ash]
x=a/b/c; echo ${x//\//:}
#### slice [ash]
x=abcdef; echo ${x:2} ${x:1:3} ${x:0:1}
#### negative slice [ash]
x=abcdef; echo ${x: -2} ${x:1:-1}
#### assignment keeps blanks
x='  a   b  '; y=$x; echo "[$y]"
#### assignment with at
set -- a b; x="$@"; y=$*; echo "$x $y"
#### several assignments
a=1 b=$a; echo $a$b
#### assignment for a command only
x=1; x=2 eval 'echo $x'; echo $x
#### assignment before external
x=5 sh -c 'echo $x'; echo "[$x]"
#### append assignment is a command in dash [ash]
x=a; x=$x; echo $x
#### unset
x=1; unset x; echo ${x-unset}
#### unset readonly
readonly x=1; unset x; echo not reached
#### readonly assignment
readonly x=1; x=2; echo not reached
#### readonly in subshell
readonly x=1; (x=2; echo no); echo $?
#### length of a list of characters
x='a b	c'; echo ${#x}
#### pattern on all parameters count
set -- one two; echo "$#" "${1#o}" "${2%o}"
#### braces needed
x=1; echo ${x}y $xy
#### assign to positional fails
echo ${1:=x}; echo not reached
