#### cat files and stdin
printf 'a\nb\n' > f; printf 'c' | cat f - f
#### cat -n [gnu]
printf 'a\n\nb' | cat -n
#### cat -b
printf 'a\n\nb\n' | cat -b
#### cat -vet
printf 'a\tb\001\177\200\377\n' | cat -vet
#### cat missing
cat missing; echo $?
#### cat directory
mkdir d; cat d; echo $?
#### cat goes on behind a missing file
echo x > f; cat missing f; echo $?
#### cat binary
printf '\000\001\377\n\000' | cat | od -An -tx1
#### head default
seq 1 20 | head
#### head -n
seq 1 20 | head -n 3
#### head old style
seq 1 20 | head -3
#### head -c
printf 'abcdef' | head -c 4
#### head -n negative
seq 1 5 | head -n -2
#### head two files
seq 1 3 > a; seq 4 6 > b; head -n 1 a b
#### head -q
seq 1 3 > a; seq 4 6 > b; head -q -n 1 a b
#### head missing
head missing; echo $?
#### head leaves the rest
printf 'a\nb\nc\n' > f; { head -n 1 > /dev/null; cat; } < f | wc -l
#### tail default
seq 1 20 | tail
#### tail -n
seq 1 20 | tail -n 3
#### tail +N
seq 1 5 | tail -n +3
#### tail -c
printf 'abcdef' | tail -c 2
#### tail -c +N
printf 'abcdef' | tail -c +3
#### tail old style
seq 1 20 | tail -2
#### tail two files
seq 1 3 > a; seq 4 6 > b; tail -n 1 a b
#### tail missing
tail missing; echo $?
#### wc
printf 'a b\nc\n' | wc
#### wc file
printf 'a b\nc\n' > f; wc f
#### wc -l
printf 'a b\nc\n' > f; wc -l f; wc -l < f
#### wc -w -c
printf 'a b\nc\n' > f; wc -wc f
#### wc two files
echo a > f; echo b c > g; wc f g
#### wc -L
printf 'abc\nabcdef\n' | wc -L
#### wc missing
wc missing; echo $?
#### sort
printf 'b\na\nc\nB\n' | sort
#### sort -n
printf '10\n9\n-1\n2.5\nx\n' | sort -n
#### sort -r
printf 'b\na\nc\n' | sort -r
#### sort -u
printf 'b\na\nb\n' | sort -u
#### sort -k
printf 'x 3\ny 1\nz 2\n' | sort -k 2
#### sort -k numeric reversed
printf 'x 3\ny 10\nz 2\n' | sort -k2,2nr
#### sort -t
printf 'b:2\na:3\nc:1\n' | sort -t: -k2
#### sort -k with offset
printf 'xb1\nya2\n' | sort -k1.2,1.2
#### sort -f
printf 'b\nA\na\nB\n' | sort -f
#### sort -c
printf 'b\na\n' | sort -c; echo $?
#### sort -o
printf 'b\na\n' > f; sort -o f f; cat f
#### sort -h [gnu]
printf '2K\n1M\n3\n1G\n' | sort -h
#### sort -M
printf 'Mar\nJan\nFeb\n' | sort -M
#### sort -V
printf 'a10\na9\na1\n' | sort -V
#### sort -n -u [gnu]
printf '1\n01\n2\n' | sort -nu
#### sort -s
printf 'a 2\na 1\n' | sort -s -k1,1
#### uniq
printf 'a\na\nb\na\n' | uniq
#### uniq -c
printf 'a\na\nb\n' | uniq -c
#### uniq -d
printf 'a\na\nb\n' | uniq -d
#### uniq -u
printf 'a\na\nb\n' | uniq -u
#### uniq -i
printf 'a\nA\nb\n' | uniq -i
#### uniq -f
printf '1 a\n2 a\n3 b\n' | uniq -f 1
#### uniq -s
printf '1a\n2a\n3b\n' | uniq -s 1
#### cut -f
printf 'a\tb\tc\n' | cut -f 2
#### cut -d
echo a:b:c:d | cut -d : -f 2-3
#### cut -f open
echo a:b:c:d | cut -d : -f 3-
#### cut -f up to
echo a:b:c:d | cut -d : -f -2
#### cut -f list
echo a:b:c:d | cut -d : -f 4,1
#### cut -s
printf 'a:b\nnone\n' | cut -d : -f 1 -s
#### cut without separator in line
printf 'a:b\nnone\n' | cut -d : -f 2
#### cut -c
echo abcdef | cut -c 2-4
#### cut -b
echo abcdef | cut -b 1,3
#### tr
echo hello | tr l r
#### tr ranges
echo Hello | tr a-z A-Z
#### tr classes
echo Hello | tr '[:upper:]' '[:lower:]'
#### tr -d
echo hello | tr -d l
#### tr -s
echo aabbcc | tr -s ab
#### tr -cd
echo 'a1b2' | tr -cd '0-9\n'
#### tr -c
echo 'a1b2' | tr -c '0-9\n' x
#### tr escapes
printf 'a b' | tr ' ' '\n'
#### tr octal
printf 'abc' | tr '\141' x
#### tr shorter second
echo abc | tr abc xy
#### tr binary
printf '\000\377' | tr '\000\377' '\001\002' | od -An -tx1
#### tr -s with two sets
echo 'a  b' | tr -s ' ' '\n'
#### tee
echo x | tee f g; cat f g
#### tee -a
echo a > f; echo b | tee -a f > /dev/null; cat f
#### rev
printf 'abc\nxyz' | rev
#### tac
printf 'a\nb\nc\n' | tac
#### nl
printf 'a\n\nb\n' | nl
#### nl -ba
printf 'a\n\nb\n' | nl -ba
#### nl -s -w -v
printf 'a\nb\n' | nl -s: -w3 -v5
#### seq
seq 3; seq 2 4; seq 1 2 7; seq 3 -1 1
#### seq -s
seq -s , 1 4
#### seq -w
seq -w 8 11
#### seq fractions
seq 0 0.5 2
#### seq nothing
seq 3 1; echo $?
#### seq 1 600 in a loop
for i in `seq 1 3`; do echo $i; done
#### yes
yes | head -n 2; yes a b | head -n 1
#### paste [gnu]
seq 1 3 > a; seq 4 5 > b; paste a b
#### paste -d
seq 1 2 > a; seq 3 4 > b; paste -d, a b
#### paste -s
seq 1 3 | paste -s -d+
#### split -l [gnu]
seq 1 5 > f; split -l 2 f p; ls; cat pac
#### split -b [gnu]
printf abcdef > f; split -b 4 f; cat xab
#### base64
printf 'hello world' | base64
#### base64 -d
echo aGVsbG8= | base64 -d
#### base64 wraps
head -c 100 /dev/zero | base64
#### base64 -w0
head -c 100 /dev/zero | base64 -w 0
#### md5sum
printf abc | md5sum; printf abc > f; md5sum f
#### sha1sum
printf abc | sha1sum
#### sha256sum
printf abc | sha256sum
#### sha512sum
printf abc | sha512sum
#### sha256sum -c
printf abc > f; sha256sum f > s; sha256sum -c s; echo x > f; sha256sum -c s; echo $?
#### cmp equal
echo a > f; echo a > g; cmp f g; echo $?
#### cmp differs
printf 'a\nb' > f; printf 'a\nc' > g; cmp f g; echo $?
#### cmp -l
printf 'abc' > f; printf 'axd' > g; cmp -l f g; echo $?
#### cmp -s
echo a > f; echo b > g; cmp -s f g; echo $?
#### cmp shorter
printf 'ab' > f; printf 'abc' > g; cmp f g; echo $?
#### od
printf 'abcdefghijklmnopqrst' | od
#### od -c
printf 'a\n\t\0\377' | od -c
#### od -x
printf 'abc' | od -x
#### od -An -tx1
printf 'abc\377' | od -An -tx1
#### od -t d1 u2
printf 'abcd' | od -t d1; printf 'abcd' | od -t u2
#### od -N -j
printf 'abcdef' | od -c -j 2 -N 2
#### od squeezes
head -c 64 /dev/zero | od
#### hexdump -C
printf 'abcdefghijklmnop\n\001' | hexdump -C
#### hexdump -C short
printf 'ab' | hexdump -C
#### hexdump -C squeezes
head -c 64 /dev/zero | hexdump -C
#### hexdump
printf 'abcde' | hexdump
#### hexdump -n -s
printf 'abcdef' > f; hexdump -C -s 1 -n 3 f
#### hexdump of nothing
hexdump -C < /dev/null
#### xxd
printf 'abcdefghijklmnopqr' | xxd
#### xxd -p
printf 'abc' | xxd -p
#### xxd -r -p
echo 616263 | xxd -r -p
#### xxd -r
printf 'hello world, hello' | xxd | xxd -r
#### expr
expr 1 + 2; expr 7 % 4; expr 3 \* 4; expr 10 / 3
#### expr compare
expr 1 '<' 2; expr a = a; expr a = b; echo $?
#### expr match
expr abc : 'a\(.*\)'; expr abc : 'ab'; expr abc : 'x'; echo $?
#### expr length
expr length abcd; expr substr abcdef 2 3; expr index abc c
#### expr or and
expr 0 '|' 5; expr 3 '&' 0
#### expr error
expr 1 + a; echo $?
#### expr division by zero
expr 1 / 0; echo $?
#### expr parentheses
expr '(' 1 + 2 ')' '*' 3
#### a line of a mebibyte
head -c 1048576 /dev/zero | tr '\0' x > f; echo >> f; cat f | grep -c x; sed 's/x$/y/' f | tail -c 3; awk '{print length($0)}' f; sort f | wc -c; cut -c 1-3 f; rev f | wc -c
