#### star
touch b a c; echo *
#### no match stays
echo z* [q]
#### question mark
touch a1 a2 b1; echo a?
#### brackets
touch a b c d; echo [a-c] [!a-c]
#### class
touch 1 a B; echo [[:digit:]] [[:upper:]]
#### hidden files need a dot
touch .h v; echo *; echo .h*
#### directories
mkdir -p d/e; touch d/x d/e/y; echo d/* */*/*
#### trailing slash
mkdir d; touch f; echo */
#### quoted star stays
touch a; echo '*' "*" \*
#### partly quoted
touch 'a*b' axb; echo a"*"b
#### variable holds a pattern
touch a b; x='*'; echo $x "$x"
#### noglob
touch a; set -f; echo *; set +f; echo *
#### in assignment no glob
touch a; x=*; echo "$x"
#### in for
touch 1 2; for i in *; do echo "<$i>"; done
#### names with blanks
touch 'a b'; for i in *; do echo "<$i>"; done
#### redirection target is not matched
touch a1; echo x > a*; ls
#### case pattern against slash
case a/b in a*b) echo yes;; esac
#### case with brackets
case 5 in [0-9]) echo digit;; esac; case x in [!0-9]) echo other;; esac
#### case with quoted pattern
case '*' in '*') echo star;; esac; case x in '*') echo bad;; *) echo ok;; esac
#### case with backslash pattern
case 'a*' in a\*) echo yes;; esac
#### bracket with closing first
case ']' in []]) echo yes;; esac
#### unclosed bracket
case '[a' in [a) echo yes;; esac
#### dash in bracket
case - in [a-]) echo yes;; esac
#### glob result order
touch B a A b; echo *
