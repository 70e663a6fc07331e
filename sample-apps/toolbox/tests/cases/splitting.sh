#### default IFS
x=' a	b
c '; set -- $x; echo $# "$1" "$2" "$3"
#### colon IFS
IFS=:; x=a:b::c; set -- $x; echo $#; for i; do echo "<$i>"; done
#### leading and trailing separators
IFS=:; x=:a:; set -- $x; echo $#; for i; do echo "<$i>"; done
#### mixed IFS
IFS=' :'; x='a : b:c  d'; set -- $x; echo $#; for i; do echo "<$i>"; done
#### empty IFS
IFS=; x='a b'; set -- $x; echo $#
#### unset IFS
unset IFS; x='a b	c'; set -- $x; echo $#
#### literal text is not split
IFS=x; set -- axb; echo $#
#### expansion beside text
x='a b'; set -- p$x"q"; echo $#; for i; do echo "<$i>"; done
#### adjacent expansions
a='1 2' b='3 4'; set -- $a$b; echo $#; for i; do echo "<$i>"; done
#### blanks at the joint
a='1 ' b=' 2'; set -- $a$b; echo $#
#### empty expansion vanishes
x=; set -- $x a $x; echo $#
#### quoted empty expansion stays
x=; set -- "$x" a; echo $#
#### quoted part protects
x='a b'; set -- "$x"' c'; echo $#
#### default word is split
set -- ${u:-a b c}; echo $#
#### quoted default word is not split
set -- ${u:-"a b" c}; echo $#
#### IFS with backslash
IFS='\'; x='a\b'; set -- $x; echo $# $1
#### newline IFS
IFS='
'; x='a b
c'; set -- $x; echo $# "$1"
#### no splitting in assignment
x='a  b'; y=$x; echo "$y"
#### no splitting in case
x='a b'; case $x in 'a b') echo yes;; esac
#### for over quoted list
IFS=,; l='a,b c,d'; for i in $l; do echo "<$i>"; done
#### IFS whitespace around separator
IFS=', '; x='a ,  b,c'; set -- $x; echo $#
#### two separators make an empty field
IFS=,; x='a,,b'; set -- $x; echo $#
