#### if
if true; then echo yes; fi; if false; then echo no; fi; echo $?
#### if else
if false; then echo a; else echo b; fi
#### elif
if false; then echo a; elif true; then echo b; else echo c; fi
#### if with list condition
if false; true; then echo yes; fi
#### if status
if true; then (exit 3); fi; echo $?
#### while
i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done
#### until
i=0; until [ $i -ge 3 ]; do echo $i; i=$((i+1)); done
#### while status
while false; do :; done; echo $?
#### break
for i in 1 2 3; do [ $i = 2 ] && break; echo $i; done; echo end
#### continue
for i in 1 2 3; do [ $i = 2 ] && continue; echo $i; done
#### break out of two
for i in 1 2; do for j in a b; do echo $i$j; break 2; done; done; echo end
#### continue outer
for i in 1 2; do for j in a b; do echo $i$j; continue 2; done; done
#### break too many
for i in 1 2; do break 9; done; echo ok
#### break outside a loop
break; echo $?
#### break in condition
while break; do echo no; done; echo $?
#### break in group
while true; do { echo once; break; }; done
#### for without in
set -- a b; for i do echo $i; done; for i; do echo $i; done
#### for with empty list
for i in; do echo no; done; echo $?
#### for keeps last value
for i in a b; do :; done; echo $i
#### for across lines
for i in \
a \
b
do
echo $i
done
#### case
case b in a) echo A;; b) echo B;; esac
#### case alternatives
case c in a|b) echo ab;; c|d) echo cd;; esac
#### case default
case z in a) echo a;; *) echo other;; esac
#### case first match wins
case a in a) echo 1;; a) echo 2;; esac
#### case no match status
false; case x in y) echo;; esac; echo $?
#### case empty arm
case x in x) ;; esac; echo $?
#### case last arm without ending
case x in x) echo yes
esac
#### case on expansion
x=ab; case $x in a*) echo starts;; esac
#### case pattern from variable
p='a*'; case abc in $p) echo yes;; esac; case abc in "$p") echo no;; *) echo quoted;; esac
#### case with empty word
case '' in '') echo empty;; esac
#### case falls through [ash]
case a in a) echo 1;; b) echo 2;; esac
#### nested compound
for i in 1 2; do case $i in 1) if true; then echo one; fi;; *) while true; do echo two; break; done;; esac; done
#### function
f() { echo "f $1 $#"; }; f a b
#### function with newline body
f()
{
echo body
}
f
#### function is a subshell
f() (x=1; echo in); f; echo "[$x]"
#### function body is a loop
f() for i in 1 2; do echo $i; done; f
#### return
f() { return 3; echo no; }; f; echo $?
#### return without value
f() { false; return; }; f; echo $?
#### return in loop
f() { for i in 1 2; do return 4; done; }; f; echo $?
#### function arguments restore
set -- a b; f() { echo $1; shift; }; f x y; echo $1 $#
#### function changes variables
f() { x=2; }; x=1; f; echo $x
#### local
f() { local x=2; echo $x; }; x=1; f; echo $x
#### local without value
f() { local x; echo "[$x]"; x=3; }; x=1; f; echo $x
#### local is seen by callee
g() { echo $x; }; f() { local x=in; g; }; x=out; f; g
#### recursive function
f() { [ $1 -gt 0 ] && { echo $1; f $(($1-1)); }; }; f 3
#### redefine function
f() { echo a; }; f; f() { echo b; }; f
#### unset function
f() { echo a; }; unset -f f; f 2>/dev/null; echo $?
#### function named as builtin
echo() { printf 'mine %s\n' "$*"; }; echo hi
#### command bypasses function
echo() { printf 'mine\n'; }; command echo real
#### function defined in function
f() { g() { echo g; }; }; f; g
#### exit in function
f() { exit 6; }; f; echo no
#### function status is last command
f() { true; false; }; f; echo $?
#### assignment before function
f() { echo $x; }; x=1; x=2 f
#### local outside a function
local x=1; echo not reached
#### eval
x='echo hi'; eval $x; eval 'y=3'; echo $y
#### eval joins arguments
eval echo a 'b;' echo c
#### eval status
eval false; echo $?; eval; echo $?
#### eval in loop
for i in 1 2; do eval break; done; echo $i
#### dot
echo 'x=5; echo sourced' > s; . ./s; echo $x
#### dot return
echo 'return 3; echo no' > s; . ./s; echo $?
#### dot missing
. ./missing; echo not reached
#### dot in path
mkdir p; echo 'echo found' > p/s; PATH=$PWD/p; . s
#### alias
alias e='echo aliased'
e x
#### alias with trailing blank
alias s='echo ' w=word
s w
#### unalias
alias e=echo
unalias e
e x 2>/dev/null; echo $?
#### alias does not recurse
alias echo='echo pre'
echo x
#### quoted word is no alias
alias e='echo aliased'
\e x 2>/dev/null; echo $?
