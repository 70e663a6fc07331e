#### sleep
sleep 0; sleep 0.01; sleep x; echo $?
#### timeout in time
timeout 5 echo a; echo $?
#### timeout out of time
timeout 0.1 sleep 5 2>/dev/null; echo $?
#### timeout of a pipeline's part
timeout 0.2 yes | head -n 1
#### env
env -i A=1 B=2 env
#### env odd names
env -i data-1=a '$_-x=b' '#@!x=c' env | sort
#### env runs a command
env X=5 sh -c 'echo $X'
#### env -u
X=1 env -u X sh -c 'echo [$X]'
#### env not found
env nosuchcommand; echo $?
#### printenv [gnu]
X=1 printenv X; printenv NOPE; echo $?
#### date -d
date -u -d @0; date -u -d @1700000000 +%Y-%m-%dT%H:%M:%S
#### date formats
date -u -d @1700000000 '+%a %A %b %B %C %d %D %e %F %H %I %j %k %l %m %M %p %R %s %S %T %u %U %V %w %W %y %Y %z %Z %%'
#### date -I
date -u -d @1700000000 -I; date -u -d @1700000000 -Iseconds
#### date -R
date -u -d @1700000000 -R
#### date reads dates
date -u -d '2024-02-29 12:34:56' +%s; date -u -d '2024-02-29' +%s
#### date wrong
date -d nonsense; echo $?
#### date -r
touch -d @1000 f; date -u -r f
#### date TZ
TZ=EST5 date -d @0
#### which
which sh > /dev/null; echo $?; which nosuchcommand; echo $?
#### id of a number
id -u | grep -c '^[0-9]*$'
#### uname
uname -s | wc -l
#### sysctl missing
sysctl no.such.key; echo $?
#### invalid option
cat -Q 2>&1 | head -n 1
#### write to a pipe that nobody reads
seq 1 100000 | head -n 1
#### tail -f of nothing is stopped
timeout 0.2 tail -f /dev/null 2>/dev/null; echo $?
#### tail -f follows
echo a > f; (sleep 0.3; echo b >> f) & timeout 1.6 tail -f f 2>/dev/null; wait
