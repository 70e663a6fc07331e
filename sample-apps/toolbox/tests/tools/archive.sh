#### tar through pipes, as kubectl cp does
mkdir -p s/d; echo a > s/f; echo b > s/d/g; tar cf - -C s f d | (mkdir t; tar xmf - -C t); cat t/f t/d/g
#### tar cf to a file and tf
mkdir d; echo a > d/f; tar cf x.tar d; tar tf x.tar
#### tar strips slashes
mkdir d; echo a > d/f; tar cf x.tar $(pwd)/d/f 2>/dev/null; tar tf x.tar | grep -c '^/'
#### tar czf and xzf
mkdir d; echo a > d/f; tar czf x.tgz d; rm -r d; tar xzf x.tgz; cat d/f
#### tar xf knows gzip [gnu]
echo a > f; tar cf - f | gzip > x.tgz; rm f; tar xf x.tgz; cat f
#### tar v
mkdir d; echo a > d/f; tar cvf x.tar d; tar xvf x.tar
#### tar with a dash
echo a > f; tar -c -f x.tar f; tar -t -f x.tar
#### tar -O
echo a > f; tar cf x.tar f; tar xOf x.tar
#### tar of one member
echo a > f; echo b > g; tar cf x.tar f g; rm f g; tar xf x.tar g; ls
#### tar missing
tar cf x.tar missing; echo $?
#### tar member missing
echo a > f; tar cf x.tar f; tar xf x.tar nope 2>/dev/null; echo $?
#### tar of links
ln -s t l; tar cf x.tar l; rm l; tar xf x.tar; readlink l
#### tar of hard links
echo a > f; ln f g; tar cf x.tar f g; rm f g; tar xf x.tar; cat f g
#### tar long names
n=$(head -c 150 /dev/zero | tr '\0' a); echo x > $n; tar cf x.tar $n; rm $n; tar xf x.tar; cat $n
#### tar keeps modes and times
echo a > f; chmod 750 f; touch -d @1000000 f; tar cf x.tar f; rm f; tar xf x.tar; stat -c '%a %Y' f
#### tar binary
head -c 100000 /dev/urandom > f; md5sum < f > s; tar cf x.tar f; rm f; tar xf x.tar; md5sum < f | cmp - s && echo same
#### tar empty directory
mkdir d; tar cf x.tar d; rmdir d; tar xf x.tar; ls
#### tar of no archive
echo hello > x.tar; tar xf x.tar 2>/dev/null; echo $?
#### tar excludes [gnu]
mkdir d; echo a > d/f; echo b > d/g.log; tar cf x.tar --exclude '*.log' d; tar tf x.tar
#### tar --strip-components
mkdir -p a/b; echo x > a/b/f; tar cf x.tar a; mkdir t; tar xf x.tar -C t --strip-components 1; cat t/b/f
#### tar read by others [gnu]
mkdir d; echo a > d/f; tar cf x.tar d; tar tf x.tar
#### gzip
echo hello > f; gzip f; ls; gunzip f.gz; cat f
#### gzip -c and zcat
echo hello | gzip -c | zcat
#### gzip -k
echo a > f; gzip -k f; ls
#### gunzip two members
(echo a | gzip; echo b | gzip) | gunzip
#### gunzip of nonsense
echo nonsense | gunzip 2>/dev/null; echo $?
#### gunzip cut short
head -c 100000 /dev/zero | gzip | head -c 50 | gunzip > /dev/null 2>&1; echo $?
#### gzip of much
head -c 3000000 /dev/zero | gzip | gunzip | wc -c
#### gzip of random bytes
head -c 200000 /dev/urandom > f; gzip -c f | gzip -dc | cmp - f && echo same
#### gzip -t
echo a | gzip > f.gz; gzip -t f.gz; echo $?
