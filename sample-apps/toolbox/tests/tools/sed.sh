#### s
echo hello | sed 's/l/L/'
#### s g
echo hello | sed 's/l/L/g'
#### s number
echo aaaa | sed 's/a/b/2'
#### s number and g [gnu]
echo aaaa | sed 's/a/b/2g'
#### s p
echo a | sed -n 's/a/b/p'
#### s I
echo ABC | sed 's/b/x/I'
#### ampersand
echo abc | sed 's/b/[&]/'; echo abc | sed 's/b/[\&]/'
#### groups
echo 'john smith' | sed 's/\(.*\) \(.*\)/\2 \1/'
#### groups extended
echo 'john smith' | sed -E 's/(.*) (.*)/\2 \1/'
#### -r
echo aab | sed -r 's/a+/x/'
#### other delimiter
echo /usr/bin | sed 's|/|:|g'
#### escaped delimiter
echo a/b | sed 's/\//-/'
#### newline in replacement
echo a,b | sed 's/,/\n/'
#### newline written
echo a,b | sed 's/,/\
/'
#### empty matches
echo abc | sed 's/x*/-/g'
#### anchors
echo abc | sed 's/^/> /; s/$/ </'
#### back reference
echo abab | sed 's/\(ab\)\1/x/'
#### d
seq 1 5 | sed 3d
#### range
seq 1 5 | sed 2,4d
#### last
seq 1 3 | sed '$d'
#### -n p
seq 1 5 | sed -n 2p
#### expression address
printf 'a\nb\nc\n' | sed -n '/b/p'
#### expression range
printf 'a\nb\nc\nd\n' | sed -n '/b/,/c/p'
#### address and further
seq 1 9 | sed -n '3,+2p'
#### step [gnu]
seq 1 9 | sed -n '1~3p'
#### 0,/re/ [gnu]
printf 'a\na\nb\n' | sed '0,/a/s/a/x/'
#### not
seq 1 3 | sed '2!d'
#### q
seq 1 5 | sed 2q
#### q with a code [gnu]
seq 1 5 | sed 'q5'; echo $?
#### a i c
seq 1 2 | sed '1a x'; seq 1 2 | sed '1i x'; seq 1 2 | sed '1c x'
#### a with backslash
seq 1 2 | sed '1a\
x\
y'
#### c of a range
seq 1 4 | sed '2,3c x'
#### y
echo abc | sed 'y/abc/xyz/'
#### =
printf 'a\nb\n' | sed =
#### n
seq 1 4 | sed 'n;d'
#### N
seq 1 4 | sed 'N;s/\n/-/'
#### N at the end
seq 1 3 | sed 'N;s/\n/-/'
#### D
seq 1 3 | sed '$!N;P;D'
#### G and H
seq 1 2 | sed G; seq 1 3 | sed -n 'H;${x;s/\n/,/g;p}'
#### reverse lines
seq 1 3 | sed -n '1!G;h;$p'
#### x
seq 1 2 | sed x
#### labels
echo aaa | sed ':a;s/a/b/;ta'
#### b to the end
seq 1 3 | sed '/2/b;s/$/x/'
#### T [gnu]
echo ab | sed 's/x/y/;T;s/a/z/'
#### block
seq 1 3 | sed -n '/2/{s/2/x/;p}'
#### nested blocks
seq 1 5 | sed -n '2,4{/3/{p;p}}'
#### -e twice
echo a | sed -e s/a/b/ -e s/b/c/
#### -f
echo s/a/b/ > f; echo a | sed -f f
#### -i
echo a > f; sed -i s/a/b/ f; cat f
#### -i with suffix
echo a > f; sed -i.bak s/a/b/ f; cat f f.bak
#### -i of several
echo a > f; echo a > g; sed -i 's/a/b/;1i x' f g; cat f g
#### no newline at the end
printf 'a\nb' | sed s/b/c/
#### r
echo x > f; seq 1 2 | sed '1r f'
#### w
seq 1 3 | sed -n '/2/w out'; cat out
#### l [gnu]
printf 'a\tb\\\001\n' | sed -n l
#### case [gnu]
echo hello world | sed 's/\w*/\u&/g; s/world/\U&/I'
#### comments
echo a | sed '# nothing
s/a/b/ # more'
#### two files [gnu]
echo a > f; echo b > g; sed -n '$p' f g; sed -s -n '$p' f g
#### missing
sed p missing; echo $?
#### unknown command
echo a | sed k 2>/dev/null; echo $?
#### unterminated
echo a | sed s/a 2>/dev/null; echo $?
#### M [gnu]
printf 'a\nb\n' | sed 'N;s/^b/x/M'
#### star after a group
echo abab- | sed 's/\(ab\)*/x/'
#### bracket with slash
echo a/b | sed 's/[/]/-/'
#### special characters
echo 'a.b*c' | sed 's/\./-/;s/\*/+/'
#### last expression again
echo aba | sed '/b/s//x/'
#### longest of alternatives
echo abcd | sed -E 's/a|ab|abc/X/'
#### z and F [gnu]
echo a | sed z
