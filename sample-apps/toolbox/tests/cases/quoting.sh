#### single quotes keep everything
echo 'a $x `y` \ "z"'
#### double quotes expand
x=1; echo "a $x b"
#### backslash in double quotes
echo "a\$b \`c\` \\ \" \x"
#### backslash unquoted
echo a\ b\$c\\d\"e
#### backslash newline joins
echo one\
two
#### backslash newline in double quotes
echo "one\
two"
#### newline in single quotes
echo 'one
two'
#### adjacent quotes form one word
echo a'b'"c"d
#### empty quotes are a field
set -- '' "" x; echo $#
#### quotes from expansion are literal
x='"a b"'; set -- $x; echo $# $1
#### quoted operator characters
echo ';' "&" \| '<' ">"
#### hash inside a word
echo a#b #comment
#### hash at start is a comment
echo x # y
#### quoted hash
echo '#a' \#b
#### tilde expands to home
HOME=/h; echo ~ ~/x
#### quoted tilde does not
HOME=/h; echo '~' "~/x" \~
#### tilde in assignment
HOME=/h; x=~/a:~/b; echo $x
#### tilde inside a word stays
HOME=/h; echo a~ x/~
#### dollar at end of word
echo a$ $
#### dollar before other character
echo $% "$." $/
#### nested quotes in substitution
echo "$(echo "a b")"
#### single quote within double
echo "it's"
#### double quote within single
echo 'say "hi"'
#### quote removal after splitting
x='a  b'; echo "$x" $x
#### ansi quotes [ash]
echo $'a\tb\n\x41\101\'q'
#### quotes in parameter default
echo ${u-'a  b'} "${u-'a  b'}"
#### double quotes in quoted default
echo "${u-"a  b"}"
#### escaped brace in default
echo "${u-a\}b}"
#### keywords as arguments
echo if then else fi for do done case esac while until { }
#### quoted keyword is a command
'if' true
