#### write and read
echo hi > f; cat < f
#### append
echo a > f; echo b >> f; cat f
#### truncate
echo long line > f; echo x > f; cat f
#### stderr to file
{ echo out; echo err >&2; } 2> f; cat f
#### both to file
{ echo out; echo err >&2; } > f 2>&1; cat f
#### order matters
{ echo out; echo err >&2; } 2>&1 > f | sed 's/^/pipe:/'; cat f
#### descriptor numbers
exec 3> f; echo three >&3; exec 3>&-; cat f
#### read from a descriptor
echo line > f; exec 4< f; read x <&4; exec 4<&-; echo $x
#### duplicate and restore stdout
exec 3>&1; exec > f; echo hidden; exec >&3 3>&-; echo shown; cat f
#### redirect a loop
for i in 1 2 3; do echo $i; done > f; cat f
#### loop reads from file
printf 'a\nb\n' > f; while read x; do echo "<$x>"; done < f
#### redirect a group
{ echo a; echo b; } > f; cat f
#### redirect an if
if true; then echo yes; fi > f; cat f
#### redirect a function call
f() { echo in f; }; f > out; cat out
#### redirect in a function definition
f() { echo in f; } > out; f; cat out
#### redirect alone creates
> f; ls; echo $?
#### input from missing file
cat < missing; echo $?
#### output into missing folder
echo x > no/f; echo $?
#### output to a folder
mkdir d; echo x > d; echo $?
#### command not run after failed redirection
echo no < missing; echo $?
#### group with failed redirection
{ echo no; } < missing; echo $?
#### special builtin with failed redirection
: < missing; echo not reached
#### exec with failed redirection
exec < missing; echo not reached
#### noclobber
set -C; echo a > f; echo b > f; echo $?; cat f
#### noclobber overridden
set -C; echo a > f; echo b >| f; cat f
#### read and write
echo abc > f; exec 3<> f; read x <&3; echo def >&3; exec 3>&-; cat f
#### close stdin
cat <&- 2>/dev/null; [ $? -ne 0 ] && echo failed
#### write to closed descriptor
echo x >&5; echo $?
#### dev null
echo gone > /dev/null; cat < /dev/null; echo $?
#### redirection before command
> f echo hi; cat f
#### several redirections
echo x > a > b; cat a; cat b
#### variable in target
n=f1; echo x > $n; cat f1
#### substitution in target
echo x > $(echo f2); cat f2
#### variable as descriptor
exec 3> f; n=3; echo x >&$n; exec 3>&-; cat f
#### here document
cat <<E
hello
world
E
#### here document expands
x=1; cat <<E
$x ${x} $(echo sub) `echo tick` $((1+1)) \$x \\ "q"
E
#### quoted here document
x=1; cat <<'E'
$x $(no) \\
E
#### partly quoted delimiter
cat <<E"O"F
$x
#### partly quoted delimiter
cat <<E"O"F
$x
EOF
#### here document with tabs
cat <<-E
	one
		two
	E
#### two here documents
cat <<A; cat <<B
a
A
b
B
#### two here documents on one command
cat <<A 3<<B <&3
a
A
b
B
#### here document in pipeline
cat <<E | tr a-z A-Z
up
E
#### here document in loop
while read x; do echo "<$x>"; done <<E
1
2
E
#### empty here document
cat <<E
E
echo $?
#### here document joins lines
cat <<E
a\
b
E
#### here document with braces
x='a b'; cat <<E
${x%b}c "${u-"d"}"
E
#### here document in function
f() { cat <<E
arg $1
E
}; f x; f y
#### here document in case
case a in a) cat <<E
in case
E
;; esac
#### here document then more commands
cat <<E && echo after
body
E
#### pipe to while changes nothing
x=0; echo a | while read y; do x=1; done; echo $x
#### stdin is shared
printf '1\n2\n3\n' | { read a; read b; echo $a $b; cat; }
#### function with stdin
f() { read x; echo "got $x"; }; echo in | f
#### redirect stderr of not found
nothing_here 2> f; sed 's/.*: //' f
#### duplicate bad descriptor
echo x 2>&9; echo $?
