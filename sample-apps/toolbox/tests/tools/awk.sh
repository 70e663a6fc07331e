#### field
echo 'a b c' | awk '{print $2}'
#### field in odd quotes
echo 'a b c' | awk {'print $1'}
#### -F
echo a:b:c | awk -F: '{print $3}'
#### -F expression
echo a12b3c | awk -F'[0-9]+' '{print $1 $2 $3}'
#### -F tab
printf 'a b\tc\n' | awk -F'\t' '{print $2}'
#### NF and NR
printf 'a b\nc\n' | awk '{print NR, NF}'
#### $NF
echo 'a b c' | awk '{print $NF, $(NF-1)}'
#### BEGIN and END
printf '1\n2\n' | awk 'BEGIN{print "b"} {s+=$1} END{print s}'
#### BEGIN alone reads nothing
awk 'BEGIN{print 1+1}'
#### pattern
printf 'a\nb\n' | awk '/b/'
#### comparison pattern
seq 1 5 | awk '$1>3'
#### range pattern
seq 1 5 | awk '/2/,/4/'
#### and or not
seq 1 5 | awk '$1>1 && $1<4 || $1==5'; seq 1 2 | awk '!/1/'
#### -v
awk -v x=5 'BEGIN{print x+1}'
#### assignment as a file
echo a > f; awk '{print x, $0}' x=1 f x=2 f
#### printf
awk 'BEGIN{printf "%5d|%-5s|%05.2f|%x|%c|%c|%e|%%\n", 42, "ab", 3.14159, 255, 65, "hello", 12345.678}'
#### print with OFS and ORS
echo 'a b' | awk 'BEGIN{OFS="-";ORS="!\n"}{print $1,$2}'
#### assigning a field
echo 'a b c' | awk '{$2="x";print;print NF}'
#### assigning beyond
echo 'a' | awk '{$3="c";print;print NF}'
#### assigning NF
echo 'a b c' | awk '{NF=2;print}'
#### $0 assigned
echo 'a b' | awk '{$0="x y z";print NF,$3}'
#### concatenation
awk 'BEGIN{a="x";b=a "y" 1+2;print b}'
#### arithmetic [gnu]
awk 'BEGIN{print 7%3, 2^10, 7/2, -3%2, 1e3, 0.1+0.2, 3/2*2}'
#### precedence [gnu]
awk 'BEGIN{print 2+3*4^2, -2^2, !0+1, 1-1-1, 2^3^2}'
#### increments
awk 'BEGIN{x=5;print x++, x, ++x, x--, --x}'
#### assignments [gnu]
awk 'BEGIN{x=10;x+=5;x-=3;x*=2;x/=4;x%=4;x^=3;print x}'
#### ternary
awk 'BEGIN{x=3;print (x>2)?"big":"small"}'
#### strings compare
awk 'BEGIN{print ("a"<"b"), ("10"<"9"), (10<9), ("abc"=="abc")}'
#### input compares as numbers
echo '10 9' | awk '{print ($1>$2), ($1<$2)}'
#### matching
echo 'foo bar' | awk '{print $1~/^f/, $2!~/^f/, "a.c"~"a.c"}'
#### arrays
printf 'a\nb\na\n' | awk '{c[$1]++} END{print c["a"], c["b"]}'
#### in
awk 'BEGIN{a["x"]=1;print ("x" in a), ("y" in a); delete a["x"]; print ("x" in a)}'
#### for in
awk 'BEGIN{a[1]=1;a[2]=4;for(k in a)s+=a[k];print s}'
#### several subscripts
awk 'BEGIN{a[1,2]=3;for(k in a){split(k,p,SUBSEP);print p[1],p[2]};if((1,2) in a)print "yes"}'
#### delete all
awk 'BEGIN{a[1];a[2];delete a;print length(a)}'
#### if else
seq 1 3 | awk '{if($1==2)print "two";else if($1==3)print "three";else print "other"}'
#### if else over lines
seq 1 2 | awk '{
  if ($1 == 1) {
    print "one"
  }
  else
    print "not"
}'
#### while
awk 'BEGIN{while(i<3){i++;if(i==2)continue;print i}}'
#### do while
awk 'BEGIN{do{print i++}while(i<2)}'
#### for
awk 'BEGIN{for(i=0;i<3;i++){if(i==2)break;print i}}'
#### endless for
awk 'BEGIN{for(;;){if(++i>2)break};print i}'
#### next
seq 1 3 | awk '$1==2{next}{print}'
#### exit
seq 1 3 | awk '{print;exit 3}END{print "end"}'; echo $?
#### function
awk 'function f(a,b){return a+b}BEGIN{print f(1,2)}'
#### recursion
awk 'function f(n){return n<2?n:f(n-1)+f(n-2)}BEGIN{print f(15)}'
#### function changes an array
awk 'function f(a){a["x"]=1}BEGIN{f(q);print q["x"]}'
#### function has locals
awk 'function f(a,  t){t=a*2;return t}BEGIN{t=1;print f(4),t}'
#### array handed on
awk 'function g(z){z[1]=7}function f(z){g(z)}BEGIN{f(a);print a[1]}'
#### length
echo hello | awk '{print length, length($1), length("ab"), length()}'
#### substr [gnu]
awk 'BEGIN{print substr("hello",2,3), substr("hello",3), substr("hello",-1), substr("hello",10) "|"}'
#### index
awk 'BEGIN{print index("hello","l"), index("hello","z")}'
#### split
awk 'BEGIN{n=split("a b c",a);print n,a[1],a[3];n=split("a:b",b,":");print n,b[2];n=split("",c);print n}'
#### split by expression
awk 'BEGIN{n=split("a1b22c",a,/[0-9]+/);print n,a[1] a[2] a[3]}'
#### sub and gsub
echo 'aaa' | awk '{n=gsub(/a/,"b");print n,$0}'; echo aaa | awk '{sub("a","[&]");print}'
#### gsub in a field
echo 'a-b c-d' | awk '{gsub("-","+",$2);print}'
#### gsub escaped ampersand
echo a | awk '{gsub(/a/,"\\&");print}'
#### gsub of nothing
echo abc | awk '{gsub(/x*/,"-");print}'
#### match
awk 'BEGIN{print match("foobar","o+"),RSTART,RLENGTH;print match("a","z"),RSTART,RLENGTH}'
#### tolower toupper
awk 'BEGIN{print tolower("ABC"), toupper("abc")}'
#### sprintf
awk 'BEGIN{x=sprintf("%03d",7);print x}'
#### numbers of functions [gnu]
awk 'BEGIN{print int(3.9), int(-3.9), sqrt(16), exp(0), log(1), sin(0), cos(0), atan2(0,1)}'
#### getline
seq 1 4 | awk 'NR==1{getline;print "got",$0,NR}'
#### getline variable
seq 1 4 | awk 'NR==1{getline x;print $0,x,NR}'
#### getline from a file
printf 'x\ny\n' > f; awk 'BEGIN{while((getline l < "f")>0)print "l",l;print (getline l < "missing")}'
#### command to getline
awk 'BEGIN{"echo hi"|getline x;print x}'
#### print to a file
awk 'BEGIN{print "a" > "out";print "b" > "out";close("out");while((getline l<"out")>0)print l}'
#### print appended
echo a > out; awk 'BEGIN{print "b" >> "out"}'; cat out
#### print to a command
awk 'BEGIN{print "b\na" | "sort";close("sort");print "end"}'
#### system
awk 'BEGIN{r=system("exit 3");print r}'
#### ENVIRON
X=5 awk 'BEGIN{print ENVIRON["X"]}'
#### ARGV
awk 'BEGIN{print ARGC, ARGV[1], ARGV[2]}' a b
#### FILENAME and FNR
echo a > f; echo b > g; awk '{print FILENAME,FNR,NR}' f g
#### RS
printf 'a;b;c' | awk 'BEGIN{RS=";"}{print}'
#### paragraphs
printf 'a\nb\n\n\nc\n' | awk 'BEGIN{RS=""}{print NR": "$1"-"$NF}'
#### RS expression
printf 'a12b3c' | awk 'BEGIN{RS="[0-9]+"}{print}'
#### FS changed
printf 'a:b c\na:b c\n' | awk '{FS=":";print $1}'
#### FS single space strips
printf '  a   b  \n' | awk '{print $1 "|" $2 "|" NF}'
#### CONVFMT
awk 'BEGIN{CONVFMT="%.2f";x=3.14159;y=x "";print y}'
#### OFMT
awk 'BEGIN{OFMT="%.2f";print 3.14159, 17}'
#### uninitialised
awk 'BEGIN{print x+0, x "", length(x), (x==0), (x=="")}'
#### number to string
awk 'BEGIN{print 1e6, 1000000*10, 100000000000, 0.000001, 1e-7, 123456789, 1234567.5}'
#### string to number
awk 'BEGIN{print "3x"+1, "abc"+0, " 12 "+1, ".5"+1, "1e2"+0}'
#### regex as value
echo abc | awk '{x=/b/;print x}'
#### escapes
awk 'BEGIN{print "a\tb\\c\"d\/e\101"}'
#### comments and semicolons
awk 'BEGIN{x=1;;print x # this
}'
#### line continues
awk 'BEGIN{x = 1 + \
2; print x}'
#### newline after and
awk 'BEGIN{if (1 &&
1) print "y"}'
#### regex with slash in bracket [gnu]
echo a/b | awk '/[/]/{print "yes"}'
#### dynamic regex with backslash
echo 'a.b' | awk '{gsub("\\.","-");print}'
#### printf with parentheses
awk 'BEGIN{printf("%s-%s\n","a","b")}'
#### print with parentheses
awk 'BEGIN{print("a","b")}'
#### print concatenated parentheses
awk 'BEGIN{print (1)(2)}'
#### print > expression
awk 'BEGIN{print "x" > "o" "1"; close("o1"); getline y < "o1"; print y}'
#### unary minus in print
awk 'BEGIN{print -1 " " -1}'
#### division by zero
awk 'BEGIN{print 1/0}' 2>/dev/null; echo $?
#### syntax error
awk '{print' /dev/null 2>/dev/null; echo $?
#### missing file
awk '{print}' missing 2>/dev/null; echo $?
#### -f
echo '{print $1}' > p; echo a b | awk -f p
#### dollar increments
echo 'a b c' | awk '{i=1;print $i++;print $++i}'
#### in operator with not
awk 'BEGIN{if(!("a" in x))print "no"}'
#### while getline < pipe
awk 'BEGIN{while(("printf \"a\\nb\\n\""|getline l)>0)print l}'
#### substr of a number
awk 'BEGIN{print substr(12345,2,2)}'
#### sum of a column
printf 'x 1.5\ny 2\n' | awk '{s+=$2}END{print s, s/NR}'
#### most frequent
printf 'a\nb\na\n' | awk '{c[$0]++}END{for(k in c)print c[k],k}' | sort -rn | head -1
#### longest match
awk 'BEGIN{print match("xabcabc","(abc)+"), RLENGTH}'
#### interval
awk 'BEGIN{print match("aaa","a{2}"), RLENGTH}'
#### printf %s of a number
awk 'BEGIN{printf "%s %s %d\n", 3.0, 0.1, "12abc"}'
#### printf star [gnu]
awk 'BEGIN{printf "%*d|%-*d|\n", 5, 42, 5, 42}'
#### printf %i and %u
awk 'BEGIN{printf "%i %u\n", 3.9, 3}'
#### close gives a code
awk 'BEGIN{print "x" | "cat >/dev/null; exit 0"; print close("cat >/dev/null; exit 0")}'
#### strftime
awk 'BEGIN{print strftime("%Y-%m-%d", 0)}'
