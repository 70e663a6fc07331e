#### plain
printf 'abc\nxyz\n' | grep b
#### none
printf 'abc\n' | grep q; echo $?
#### -v
printf 'abc\nxyz\n' | grep -v b
#### -n
printf 'abc\nxyz\nb\n' | grep -n b
#### -c
printf 'abc\nxyz\nb\n' | grep -c b
#### -i
printf 'ABC\nxyz\n' | grep -i b
#### -l and -L
echo b > f; echo x > g; grep -l b f g; grep -L b f g
#### -o
echo 'foo bar foo' | grep -o foo
#### -q
echo b | grep -q b; echo $?
#### -w
printf 'foo\nfoobar\na foo b\n' | grep -w foo
#### -x
printf 'foo\nfoobar\n' | grep -x foo
#### -E
printf 'ab\nac\nad\n' | grep -E 'a(b|c)'
#### -E plus and question
printf 'ac\nabc\nabbc\n' | grep -E 'ab+c'; printf 'ac\nabc\nabbc\n' | grep -E 'ab?c'
#### -E interval
printf 'a\naa\naaa\n' | grep -E '^a{2,3}$'
#### -F
printf 'a.c\nabc\n' | grep -F a.c
#### basic star and dot
printf 'ac\nabc\naXc\n' | grep 'a.c'
#### basic interval
printf 'a\naa\n' | grep 'a\{2\}'
#### basic alternation
printf 'a\nb\nc\n' | grep 'a\|b'
#### basic plus is a plus
printf 'a+\naa\n' | grep 'a+'
#### anchors
printf 'ab\nba\n' | grep '^a'; printf 'ab\nba\n' | grep 'a$'
#### bracket
printf 'a]b\nab\n' | grep '[]]'; printf 'a-b\nab\n' | grep '[a-]-'
#### negated bracket
printf 'abc\nddd\n' | grep '[^d]'
#### classes
printf 'a1\nab\n' | grep '[[:digit:]]'
#### back reference
printf 'abab\nabcd\n' | grep '\(ab\)\1'
#### back reference extended
printf 'aa\nab\n' | grep -E '(.)\1'
#### \w and \b
printf 'a b\n--\n' | grep -o '\w'; echo 'cat concat' | grep -o '\bcat'
#### word marks
echo 'cat concat' | grep -o '\<c[a-z]*'
#### -e twice
printf 'a\nb\nc\n' | grep -e a -e c
#### -f
printf 'a\nc\n' > p; printf 'a\nb\nc\n' | grep -f p
#### newline in pattern
printf 'a\nb\nc\n' | grep 'a
c'
#### -m
printf 'a\na\na\n' | grep -m 2 a
#### -A
printf '1\n2\n3\n4\n' | grep -A 1 2
#### -B
printf '1\n2\n3\n4\n' | grep -B 1 3
#### -C separates groups
seq 1 9 | grep -C 1 '[28]'
#### -n with context
seq 1 5 | grep -n -A 1 2
#### two files
echo a > f; echo a > g; grep a f g; grep -h a f g
#### -H
echo a > f; grep -H a f
#### -r
mkdir d; echo a > d/f; echo a > d/g; grep -r a d
#### -c of several
echo a > f; echo b > g; grep -c a f g
#### missing
grep a missing; echo $?
#### -s
grep -s a missing; echo $?
#### bad expression
echo x | grep '\(' 2>/dev/null; echo $?
#### empty expression
printf 'a\n\n' | grep -c ''
#### empty lines removed
printf 'a\n \n\nb\n' | grep -v '^\s*$'
#### stdin named
echo a | grep a - /dev/null
#### no newline at end
printf 'abc' | grep b
#### longest of alternatives
echo abcd | grep -oE 'a|ab|abc'
#### star at start
echo '*a' | grep '*a'
#### egrep and fgrep
echo ab | egrep 'a|x'; echo a.b | fgrep .
#### word of a file
printf 'Cpus_allowed_list:\t0-3\nother\n' > status; grep Cpus_allowed_list status | cut -f2
