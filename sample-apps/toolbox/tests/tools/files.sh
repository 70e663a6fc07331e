#### cp
echo a > f; cp f g; cat g
#### cp into a directory
echo a > f; mkdir d; cp f d; cat d/f
#### cp several
echo a > f; echo b > g; mkdir d; cp f g d; ls d
#### cp directory without -r
mkdir d; cp d e; echo $?
#### cp -r
mkdir -p d/e; echo a > d/e/f; cp -r d n; cat n/e/f
#### cp -a keeps links
ln -s x l; cp -a l m; readlink m
#### cp missing
cp missing g; echo $?
#### cp onto itself
echo a > f; cp f f; echo $?
#### cp several onto a file
echo a > f; echo b > g; echo c > h; cp f g h 2>/dev/null; echo $?
#### cp -n
echo a > f; echo b > g; cp -n f g; cat g
#### cp -v
echo a > f; cp -v f g
#### mv
echo a > f; mv f g; ls; cat g
#### mv into a directory
echo a > f; mkdir d; mv f d; ls d
#### mv -v
echo a > f; mv -v f g
#### mv -v between directories
mkdir d; echo a > f; mv -v f d/
#### mv missing
mv missing g; echo $?
#### rm
echo a > f; rm f; ls
#### rm missing
rm missing; echo $?
#### rm -f missing
rm -f missing; echo $?
#### rm directory
mkdir d; rm d; echo $?
#### rm -r
mkdir -p d/e; echo > d/e/f; rm -r d; ls
#### rm -rf of several
mkdir d; echo > f; rm -rf d f none; ls; echo $?
#### rm dot
rm -r .; echo $?
#### rm link leaves target
mkdir d; echo > d/f; ln -s d l; rm -r l; ls d
#### rmdir
mkdir d; rmdir d; ls
#### rmdir full
mkdir -p d/e; rmdir d; echo $?
#### rmdir -p
mkdir -p d/e/f; rmdir -p d/e/f; ls
#### mkdir
mkdir d; ls; mkdir d; echo $?
#### mkdir -p
mkdir -p a/b/c; mkdir -p a/b; echo $?; ls a
#### mkdir below nothing
mkdir a/b; echo $?
#### ln -s
ln -s t l; readlink l
#### ln -s exists
ln -s t l; ln -s u l; echo $?
#### ln -sf
ln -s t l; ln -sf u l; readlink l
#### ln
echo a > f; ln f g; echo b > f; cat g
#### ln into a directory
mkdir d; ln -s /x/t d; readlink d/t
#### touch
touch f; ls; touch -c g; ls
#### touch -d
touch -d '2020-01-02 03:04:05' f; stat -c %Y f; date -r f
#### touch -t
touch -t 202001020304.05 f; stat -c %Y f
#### touch -r
touch -d @1000 f; touch -r f g; stat -c %Y g
#### ls
echo > b; echo > a; mkdir c; ls
#### ls -a
echo > .h; ls -a
#### ls -A
echo > .h; ls -A
#### ls -d
mkdir d; ls -d d
#### ls file and directory
mkdir d; echo > d/x; echo > f; ls f d
#### ls -R
mkdir -p a/b; echo > a/f; ls -R
#### ls -1r
echo > a; echo > b; ls -1r
#### ls -S
printf aaa > s; printf aaaaaa > b; ls -S
#### ls -t
touch -d @1000 o; touch -d @2000 n; ls -t
#### ls -F
mkdir d; echo > f; ln -s f l; ls -F
#### ls missing
ls missing; echo $?
#### ls -l
echo abc > f; chmod 644 f; touch -d '2001-02-03 04:05:06' f; ls -l f
#### ls -ln
echo abc > f; chmod 755 f; touch -d '2001-02-03 04:05:06' f; ls -ln f
#### ls -lh
head -c 5000 /dev/zero > f; touch -d '2001-02-03 04:05:06' f; chmod 600 f; ls -lh f
#### ls -l of a link
ln -s t l; touch -h -d @0 l 2>/dev/null; ls -l l | cut -c 1-10
#### stat -c
printf abc > f; chmod 640 f; stat -c '%n %s %a %A %F %h' f
#### stat -c of a directory
mkdir d; chmod 755 d; stat -c '%F %a %A' d
#### stat missing
stat missing; echo $?
#### chmod
touch f; chmod 600 f; stat -c %a f; chmod u+x,g=r f; stat -c %a f; chmod a-x f; stat -c %a f; chmod +x f; stat -c %a f
#### chmod -x
touch f; chmod 755 f; chmod -x f; stat -c %a f
#### chmod -R
mkdir d; touch d/f; chmod -R 700 d; stat -c %a d d/f
#### chmod invalid
touch f; chmod zz f; echo $?
#### chmod missing
chmod 600 missing; echo $?
#### readlink -f
mkdir d; touch d/f; ln -s d/f l; readlink -f l | sed 's,.*/d/,d/,'
#### readlink of a file
touch f; readlink f; echo $?
#### realpath
touch f; realpath f | sed 's,.*/,,'; realpath none/x; echo $?
#### basename
basename /a/b/c.txt; basename /a/b/c.txt .txt; basename /; basename a/
#### dirname
dirname /a/b/c; dirname a; dirname /a; dirname a/b/; dirname /
#### mktemp
f=$(mktemp -p .); ls -l $f | cut -c 1-10; d=$(mktemp -d -p .); test -d $d && echo dir
#### mktemp template
f=$(mktemp abc.XXXXXX); echo $f | cut -c 1-4; mktemp abc.XX 2>/dev/null; echo $?
#### find
mkdir -p d/e; touch d/f d/e/g; find d | sort
#### find -name
mkdir d; touch d/a.txt d/b.c; find d -name '*.txt'
#### find -iname
mkdir d; touch d/A.TXT; find d -iname '*.txt'
#### find -type
mkdir -p d/e; touch d/f; find d -type f; find d -type d | sort
#### find -maxdepth
mkdir -p d/e/f; find d -maxdepth 1 | sort; find d -mindepth 2
#### find -size
mkdir d; head -c 2000 /dev/zero > d/b; touch d/s; find d -type f -size +1k; find d -type f -size 0
#### find -exec
mkdir d; echo x > d/f; find d -type f -exec cat {} \;
#### find -exec +
mkdir d; echo x > d/f; echo y > d/g; find d -type f -exec echo {} + | wc -w
#### find -delete [gnu]
mkdir d; touch d/a d/b; find d -name a -delete; ls d
#### find -print0
mkdir d; touch d/a; find d -name a -print0 | tr '\0' '!'
#### find or not
mkdir d; touch d/a d/b d/c; find d -type f \( -name a -o -name b \) | sort; find d -type f ! -name a | sort
#### find -prune
mkdir -p d/x d/y; touch d/x/f d/y/f; find d -name x -prune -o -type f -print
#### find -empty
mkdir -p d/e; touch d/f; echo > d/g; find d -empty | sort
#### find -newer
touch -d @1000 o; touch -d @2000 n; find . -type f -newer o
#### find -perm
touch f g; chmod 600 f; chmod 644 g; find . -type f -perm 600
#### find missing
find missing; echo $?
#### find -path
mkdir -p d/e; touch d/e/f; find d -path '*/e/*'
#### find -mtime
touch -d @1000 o; touch n; find . -type f -mtime +1
#### xargs
printf 'a b\nc\n' | xargs
#### xargs -n
printf '1 2 3\n' | xargs -n 1 echo x
#### xargs -I
printf 'a b\nc\n' | xargs -I X echo '[X]'
#### xargs quotes
printf "'a b' \"c d\" e\\\\ f\n" | xargs -n 1 echo
#### xargs -0
printf 'a b\0c\0' | xargs -0 -n 1 echo
#### xargs -r
printf '' | xargs -r echo x; printf '' | xargs echo x
#### xargs -t
echo a | xargs -t echo
#### xargs code
echo a | xargs false; echo $?
#### xargs not found
echo a | xargs nosuchcommand 2>/dev/null; echo $?
#### find into xargs
mkdir d; echo x > d/f; find d -type f -print0 | xargs -0 cat
#### du -s of a file
head -c 8192 /dev/zero > f; du -s f; du -h f
#### diff equal
echo a > f; echo a > g; diff f g; echo $?
#### diff
seq 1 10 > f; seq 1 10 | sed 's/5/x/' > g; diff -u f g | tail -n +3; echo $?
#### diff names
echo a > f; echo b > g; diff -u -L f -L g f g; echo $?
#### diff added and removed
printf 'a\nb\nc\n' > f; printf 'b\nc\nd\n' > g; diff -u -L 1 -L 2 f g
#### diff two hunks
seq 1 30 > f; seq 1 30 | sed 's/^3$/x/;s/^27$/y/' > g; diff -u -L 1 -L 2 f g
#### diff no newline
printf 'a\nb' > f; printf 'a\nb\n' > g; diff -u -L 1 -L 2 f g
#### diff -q
echo a > f; echo b > g; diff -q f g; echo $?
#### diff empty
touch f; echo a > g; diff -u -L 1 -L 2 f g
#### diff -i -b -w
echo 'A  b' > f; echo 'a b' > g; diff -i -b f g; echo $?
#### diff -r
mkdir a b; echo 1 > a/f; echo 2 > b/f; echo x > a/only; diff -rq a b; echo $?
#### diff missing
echo a > f; diff f missing; echo $?
#### diff -U
seq 1 9 > f; seq 1 9 | sed s/5/x/ > g; diff -U 1 -L 1 -L 2 f g
#### truncate
printf abcdef > f; truncate -s 3 f; cat f; truncate -s 5 f; wc -c < f
#### unlink
touch f; unlink f; ls
