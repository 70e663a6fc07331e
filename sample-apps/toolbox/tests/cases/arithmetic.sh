#### basic operators
echo $((1+2)) $((7-10)) $((3*4)) $((17/5)) $((17%5))
#### precedence
echo $((2+3*4)) $(((2+3)*4)) $((10-2-3))
#### negative division
echo $((-7/2)) $((-7%2)) $((7/-2))
#### comparison
echo $((1<2)) $((2<=1)) $((3>2)) $((3>=4)) $((1==1)) $((1!=1))
#### logic
echo $((1&&0)) $((1||0)) $((!5)) $((!0))
#### bits
echo $((6&3)) $((6|3)) $((6^3)) $((~5)) $((1<<4)) $((256>>2))
#### ternary [dash]
echo $((1?2:3)) $((0?2:3)) $((1?0?4:5:6))
#### variables
x=5; echo $((x+1)) $(($x+1)) $((x*x))
#### unset variable is zero
echo $((nothing+1))
#### assignment
echo $((x=5)) $x; echo $((x+=3)) $x; echo $((x*=2)) $((x-=1)) $((x/=3)) $((x%=3)) $x
#### bit assignment
x=12; echo $((x&=10)) $((x|=1)) $((x^=3)) $((x<<=2)) $((x>>=1))
#### hexadecimal and octal
echo $((0x1f)) $((0X1F)) $((017))
#### spaces and newlines
echo $((  1 +
 2 ))
#### nested
echo $(( $((1+2)) * 3 ))
#### command inside
echo $(( $(echo 4) + 1 ))
#### parameter expansion inside
set -- a b c; echo $(($#*2)) $((${#}+1)) $((${x:-4}+1))
#### unary plus and minus
x=3; echo $((-x)) $((+x)) $((- -x)) $((1 - -1))
#### short circuit does not assign [dash]
x=1; echo $((0&&(x=9))) $((1||(x=9))) $x
#### wraps around
echo $((9223372036854775807+1))
#### multiplication wraps
echo $((9223372036854775807*2))
#### smallest over minus one
echo $(( (-9223372036854775807-1) / 1 ))
#### literal too large [dash]
echo $((9223372036854775808)) $((99999999999999999999999))
#### division by zero
echo $((1/0)); echo not reached
#### remainder by zero
echo $((1%0)); echo not reached
#### division by zero in subshell
(echo $((1/0))) ; echo $?
#### syntax error
echo $((1+)); echo not reached
#### garbage after expression
echo $((1 2)); echo not reached
#### empty expression
echo $((0)) $(( ))
#### increment [ash]
x=5; echo $((x++)) $x $((++x)) $((x--)) $((--x))
#### power [ash]
echo $((2**10)) $((2**3**2))
#### comma
echo $((x=1,x+1))
#### arithmetic in quotes
echo "$((1+1))" "a$((2*2))b"
#### result is split by IFS
IFS=1; echo $((212)) "$((212))"
#### looks like a subshell in substitution
echo $( (echo a); (echo b) )
#### variable with blanks
x=' 7 '; echo $((x+1))
#### loop with arithmetic
i=0; while [ $i -lt 5 ]; do i=$((i+1)); done; echo $i
#### let [ash]
let x=3+4; echo $x $?; let x=0; echo $?
#### comparison chains
echo $((1<2==1)) $((3&2==2))
#### shift amounts
echo $((1<<62)) $((-8>>1))
#### factorial by recursion
f() { if [ $1 -le 1 ]; then echo 1; else echo $(($1 * $(f $(($1-1))))); fi; }; f 10
#### array subscript in arithmetic is an error
echo $((a[1])); echo not reached
