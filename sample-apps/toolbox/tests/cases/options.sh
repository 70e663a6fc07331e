#### errexit
set -e; false; echo no
#### errexit passes conditions
set -e; if false; then :; fi; false || true; ! true; while false; do :; done; echo ok
#### errexit in and list
set -e; false && true; echo ok; true && false; echo no
#### errexit in function
set -e; f() { false; echo no; }; f; echo no
#### errexit in tested function
set -e; f() { false; echo yes; }; f || true; if f; then :; fi; echo end
#### errexit in subshell
set -e; (false; echo no); echo no
#### errexit in tested subshell
set -e; (false; echo yes) || echo no; echo end
#### errexit in pipeline
set -e; false | true; echo yes; true | false; echo no
#### errexit in substitution
set -e; x=$(false); echo no
#### errexit in echo substitution
set -e; echo $(false) yes
#### errexit in group
set -e; { false; echo no; }; echo no
#### errexit in eval
set -e; eval false; echo no
#### errexit in last of and
set -e; true && (exit 3); echo no
#### errexit in for
set -e; for i in 1 2; do false; done; echo no
#### errexit in case
set -e; case x in x) false;; esac; echo no
#### errexit with not
set -e; ! true; echo yes; ! false; echo yes
#### errexit off again
set -e; set +e; false; echo yes
#### errexit runs exit trap
set -e; trap 'echo trap $?' EXIT; false
#### sh -e
sh -e -c 'false; echo no'; echo $?
#### sh -ec
sh -ec 'true; false; echo no'; echo $?
#### nounset in arithmetic
set -u; echo $((x+1))
#### nounset positional
set -u; set --; echo ${1-none}; echo $1; echo not reached
#### nounset length
set -u; echo ${#x}; echo not reached
#### xtrace
set -x; echo a 'b c'; x=1; set +x
#### xtrace with PS4
PS4='> '; set -x; echo a
#### noexec
sh -n -c 'echo no'; echo $?
#### noexec finds errors
sh -n -c 'if'; echo $?
#### verbose
sh -v -c 'echo a'
#### allexport
set -a; x=1; sh -c 'echo $x'
#### option string
sh -eu -c 'case $- in *e*u*|*u*e*) echo ok;; esac'
#### set dash o
set -o errexit; false; echo no
#### trap exit
trap 'echo bye' EXIT; echo hi
#### trap exit keeps status
trap 'echo bye' EXIT; exit 3
#### trap exit sees status
trap 'echo $?' EXIT; exit 4
#### trap exit can change status
trap 'exit 7' EXIT; exit 3
#### trap exit in subshell
(trap 'echo sub' EXIT; echo in); echo out
#### trap is not inherited
trap 'echo main' EXIT; (echo in); echo end
#### trap reset
trap 'echo no' EXIT; trap - EXIT; echo end
#### trap by number
trap 'echo bye' 0; echo hi
#### trap list
trap 'echo "x y"' TERM; trap
#### trap signal to self
trap 'echo got' TERM; kill $$; echo after
#### trap ignored signal
trap '' TERM; kill $$; echo alive
#### trap with exit
trap 'echo bye; exit 5' TERM; kill $$; echo no
#### trap INT
trap 'echo int' INT; kill -INT $$; echo after
#### trap USR1
trap 'echo usr' USR1; kill -USR1 $$; kill -s USR1 $$; echo after
#### trap bad signal
trap 'echo x' NONSENSE; echo $?
#### trap keeps status
trap 'false' TERM; kill $$; echo $?
#### trap in function
f() { trap 'echo end' EXIT; }; f; echo body
#### trap during wait
trap 'echo woken' USR1; { sleep 0.1; kill -USR1 $$; sleep 0.3; } & wait $!; [ $? -gt 128 ] && echo interrupted
#### trap in background job
{ trap 'echo job term; exit 3' TERM; while :; do sleep 0.05; done; } & sleep 0.2; kill $!; wait $!; echo $?
#### trap exit after error
trap 'echo bye' EXIT; echo ${x?}; echo no
#### trap exit on syntax error in eval
trap 'echo bye' EXIT; eval 'if'; echo no
#### killed by signal [dash]
sh -c 'kill -9 $$'; echo $?
#### killed by TERM [dash]
sh -c 'kill $$; echo no'; echo $?
#### trap exit not run by exec
trap 'echo no' EXIT; exec echo yes
