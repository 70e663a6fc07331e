# Prints the input of TestExpressions: a schema and an object, then rules, one a line as JSON. Those of cel-spec's simple tests come from
# the folder that is the argument; what gives no boolean is made one.
import json, re, sys

HEAD = r"""{"Schema": {"type": "object", "properties": {"s": {"type": "string", "maxLength": 20}, "l": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}}, "m": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer"}}, "o": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 10}}}, "i": {"type": "integer"}, "n": {"type": "number"}, "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 10}}, "ml": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 10}, "v": {"type": "integer"}}}}, "t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"}, "by": {"type": "string", "format": "byte", "maxLength": 20}, "ios": {"x-kubernetes-int-or-string": true}, "opt": {"type": "string", "nullable": true, "maxLength": 5}, "big": {"type": "array", "maxItems": 100, "items": {"type": "integer"}}}}, "Object": {"s": "abc", "l": ["x", "y"], "m": {"a": 1, "b": 2}, "o": {"a": 1, "b": "z"}, "i": 7, "n": 2, "set": ["a", "b"], "ml": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "t": "2021-05-04T03:02:01Z", "d": "1h30m", "by": "aGk=", "ios": 5, "big": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99]}}"""
FILES="basic comparisons conversions fp_math integer_math lists logic macros macros2 string string_ext timestamps optionals plumbing parse fields network_ext namespace".split()
def blocks(text):
    out=[];depth=0;start=None
    i=0;instr=None
    while i<len(text):
        c=text[i]
        if instr:
            if c=='\\': i+=1
            elif c==instr: instr=None
        elif c in '"\'': instr=c
        elif c=='#':
            while i<len(text) and text[i]!='\n': i+=1
        elif text.startswith('test {',i) and (i==0 or text[i-1] in ' \n\t') and start is None:
            start=i; depth=0
        elif c=='{' : pass
        if start is not None and not instr:
            if c=='{': depth+=1
            if c=='}':
                depth-=1
                if depth==0: out.append(text[start:i+1]); start=None
        i+=1
    return out
def unq(m):
    s=''
    for q in re.finditer(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'',m):
        t=q.group(1) if q.group(1) is not None else q.group(2)
        s+=t
    # C escapes
    def esc(x):
        e=x.group(1)
        t={'n':'\n','t':'\t','r':'\r','a':'\a','b':'\b','f':'\f','v':'\v','\\':'\\','"':'"',"'":"'",'?':'?'}
        if e[0] in t: return t[e[0]]
        if e[0]=='x': return chr(int(e[1:],16))
        if e[0]=='u' or e[0]=='U': return chr(int(e[1:],16))
        return chr(int(e,8))
    return re.sub(r'\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)',esc,s)
res=[]
for f in FILES:
    t=open('%s/%s.textproto'%(sys.argv[1],f)).read()
    for b in blocks(t):
        if re.search(r'\b(bindings|type_env|container|disable_check|check_only|disable_macros)\b\s*[:{]',b): continue
        m=re.search(r'\bexpr:\s*((?:(?:"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')\s*)+)',b)
        if not m: continue
        try: e=unq(m.group(1))
        except Exception as x: continue
        if 'TestAllTypes' in e or 'google.' in e or 'proto' in e.lower() or 'Nested' in e or '{}' in e and False: continue
        if len(e)>3000: continue
        v=re.search(r'\bvalue:?\s*\{(.*)\}',b,re.S)
        if 'bool_value' in b: r=e
        elif re.search(r'int64_value:\s*(-?\d+)',b) and 'list_value' not in b and 'map_value' not in b:
            n=re.search(r'(u?)int64_value:\s*(-?\d+)',b)
            r='(%s) == %s%s'%(e,n.group(2),'u' if n.group(1) else '')
        else: r='type(%s) == type(%s)'%(e,e)
        res.append(r)

# Our own: a feature of each library, errors, and what grows.
X=r'''
self.s == 'abc'
self.s.size() == 3 && self.l.size() == 2
self.m.all(k, self.m[k] > 0)
self.m.exists(k, k == 'a')
self.l.map(x, x + x) == ['xx','yy']
self.l.filter(x, x == 'x').size() == 1
self.l.exists_one(x, x == 'x')
self.o.a == 1 && has(self.o.b)
has(self.o.a) ? self.o.a > 0 : self.o.b == 'z'
self.?o.?a.orValue(5) == 1
self.o.?b.hasValue()
self.?o.optMap(o, o.a + 1).orValue(0) == 2
self.l[?5].orValue('none') == 'none'
self.m[?'zz'].hasValue()
self.l[0] == self.l[self.i - 7]
self.l[self.i] == 'x'
self.m['zz'] == 1
self.m[self.s] == 1
self.missing == 1
self.o.c.d
self.s + 1 == 'abc1'
self.l + ['z'] == ['x', 'y', 'z']
self.set == ['b','a']
self.set + ['c','a'] == ['a','b','c']
self.ml == [{'k':'b','v':2},{'k':'a','v':1}]
self.ml == self.ml
self.ml.all(e, e.v > 0)
self.t > timestamp('2020-01-01T00:00:00Z')
self.t.getFullYear() == 2021
self.d > duration('1m')
self.d.getMinutes() == 90
self.by == b'hi'
self.ios == 5 || type(self.ios) == string
type(self.ios) == int ? self.ios < 10 : self.ios.contains('%')
self.ios > 3
self.n > 1.5
self.n == 2
self.i in [1,2,7]
self.s in ['abc','d']
self.s in self.l
'a' in self.m
self.i / 0 == 1
self.i % 0 == 1
self.i * 9223372036854775807 > 0
-(-9223372036854775808) > 0
self.i + 9223372036854775807 > 0
9223372036854775807 - (-1) > 0
0u - 1u == 0u
true || 1/0 == 1
1/0 == 1 || true
false && 1/0 == 1
1/0 == 1 && false
1/0 == 1 && true
self.l.all(x, x == 'y' || 1/0 == 1)
self.l.exists(x, x == 'y' || 1/0 == 1)
self.l.all(x, x == 'x' && 1/0 == 1)
self.m.transformMap(k, v, v + 1) == {'a': 2, 'b': 3}
self.m.transformList(k, v, v).size() == 2
self.m.transformMapEntry(k, v, {v: k})[1] == 'a'
self.m.transformMapEntry(k, v, {'same': k}).size() == 1
self.l.all(i, v, i < 2 && v != '')
self.l.exists(i, v, i == 1 && v == 'y')
self.l.existsOne(i, v, v == 'y')
self.m.transformMap(k, v, v > 1, v) == {'b': 2}
self.l.transformList(i, v, i > 0, v + v) == ['yy']
self.s.matches('^[a-z]+$')
self.s.matches(self.s)
self.s.matches('(')
matches(self.s, 'b')
self.s.find('[bc]+') == 'bc'
'a1b22c333'.findAll('[0-9]+') == ['1','22','333']
'a1b22c333'.findAll('[0-9]+', 2) == ['1','22']
self.s.upperAscii() == 'ABC' && 'ÀB'.lowerAscii() == 'Àb'
self.s.replace('b', 'xx') == 'axxc'
'abab'.replace('a', '', 1) == 'bab'
'hello'.replace('', '_') == '_h_e_l_l_o_'
'a,b,c'.split(',') == ['a','b','c'] && 'abc'.split('') == ['a','b','c']
'a,b,c'.split(',', 2) == ['a','b,c'] && 'a,b'.split(',', 0) == [] && 'a,b'.split(',', -1).size() == 2
'abc'.split('', 2) == ['a','bc']
['a','b'].join('-') == 'a-b' && ['a','b'].join() == 'ab'
self.l.join(',') == 'x,y'
'  x '.trim() == 'x'
'tacocat'.substring(2,4) == 'co' && 'tacocat'.substring(4) == 'cat'
'tacocat'.substring(5,4) == ''
'tacocat'.substring(9) == ''
'tacocat'.charAt(3) == 'o' && 'abc'.charAt(3) == ''
'abc'.charAt(4) == ''
'tacocat'.indexOf('ac') == 1 && 'tacocat'.indexOf('') == 0 && 'tacocat'.indexOf('a', 3) == 5 && 'tacocat'.indexOf('none') == -1
'tacocat'.lastIndexOf('at') == 5 && 'tacocat'.lastIndexOf('a', 4) == 1 && 'tacocat'.lastIndexOf('') == 7
'tacocat'.lastIndexOf('tac', 0) == 0 && 'aaaa'.lastIndexOf('aa', 1) == 1
'tacocat'.indexOf('a', -1) == 1
strings.quote('a"b\n') == '"a\\"b\\n"'
'%s-%d'.format(['a', 1]) == 'a-1'
[1,2,3].isSorted() && ![2,1].isSorted() && ['a','b'].isSorted()
[1,2,3].sum() == 6 && [1.5,2.0].sum() == 3.5 && [duration('1m'), duration('1s')].sum() == duration('1m1s')
[].sum() == 0
[3,1,2].max() == 3 && [3,1,2].min() == 1
[].max() == 0
self.l.max() == 'y'
[1,2,2].indexOf(2) == 1 && [1,2,2].lastIndexOf(2) == 2 && [1].indexOf(5) == -1
self.l.indexOf('y') == 1
self.l.includes('x')
sets.contains([1,2,3],[2]) && sets.equivalent([1,2],[2,1]) && sets.intersects([1],[1,2])
sets.contains(self.l, ['x'])
[1,2,3,4].slice(1,3) == [2,3]
[1,2].slice(1,5) == []
[[1],[2,3]].flatten() == [1,2,3] && [1,[2,[3]]].flatten(2) == [1,2,3]
[3,1,2].sort() == [1,2,3]
lists.range(4) == [0,1,2,3]
[1,2,3].reverse() == [3,2,1]
[1,2,1].distinct() == [1,2]
[1,2].first().value() == 1 && [1,2].last().orValue(0) == 2
[].first().hasValue()
url('https://user:pw@example.com:80/a b/c?x=1&x=2&y').getHost() == 'example.com:80'
url('https://example.com:80/path?x=1&x=2').getQuery() == {'x':['1','2']}
url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'
url('/a/b').getEscapedPath() == '/a/b' && url('HTTP://x').getScheme() == 'http'
isURL('https://a.b') && !isURL('../x') && isURL('/x') && !isURL('')
url('../x').getHost() == ''
ip('127.0.0.1').family() == 4 && ip('::1').isLoopback() && ip('10.0.0.1').isGlobalUnicast()
isIP('1.2.3.4') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')
ip('::ffff:1.2.3.4').family() == 4
ip('x').family() == 4
ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')
ip('127.0.0.1') == ip('127.0.0.1') && ip('127.0.0.1') != ip('::1') && string(ip('10.0.0.1')) == '10.0.0.1'
cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3')) && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')
cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').ip() == ip('10.1.2.3')
isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/08')
cidr('x').prefixLength() == 1
quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('100m').add(quantity('0.9')) == quantity('1') && quantity('5').asInteger() == 5
quantity('1.5').isInteger() || quantity('1k').isInteger()
quantity('1.5').asInteger() == 1
quantity('x') == quantity('1')
isQuantity('1.3Gi') && !isQuantity('x') && sign(quantity('-1')) == -1
quantity('-1').sign() == -1
quantity('50k').sub(20).compareTo(quantity('49980')) == 0
quantity('2.5').asApproximateFloat() == 2.5
semver('1.2.3').major() == 1 && semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0-rc.1') && !isSemver('v1.0')
isSemver('v1.0', true) && semver('v01.0', true) == semver('1.0.0') && semver('1.0.0-alpha.1').compareTo(semver('1.0.0-alpha.beta')) == -1
semver('1.0').minor() == 0
format.dns1123Label().validate('my-label') == optional.none()
format.dns1123Label().validate('My').hasValue()
!format.named('qualifiedName').value().validate('a/b').hasValue() && !format.named('nope').hasValue()
!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.uuid().validate('x').value() == ['does not match the UUID format']
!format.uri().validate('http://example.com').hasValue() && !format.byte().validate('aGk=').hasValue() && !format.date().validate('2021-01-01').hasValue() && !format.datetime().validate('2021-01-01T00:00:00Z').hasValue()
!format.labelValue().validate('a').hasValue() && !format.dns1035Label().validate('a').hasValue() && format.dns1035Label().validate('1a').hasValue()
jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'
optional.of(1).or(optional.of(2)).value() == 1 && optional.none().orValue(3) == 3
optional.none().value() == 1
optional.ofNonZeroValue(0).hasValue() || optional.ofNonZeroValue('').hasValue()
[optional.of(1), optional.none()].unwrapOpt() == [1] && optional.unwrap([optional.of(2)]) == [2]
[?optional.of(1), ?optional.none(), 3] == [1, 3]
{?'a': optional.of(1), ?'b': optional.none()} == {'a': 1}
optional.of('x').optFlatMap(v, optional.of(v + v)).value() == 'xx'
dyn(self.i) == 7 && dyn('a') != 1
dyn('a') + dyn(1) == 'a1'
dyn(1) < dyn('a')
dyn([1, 'a']).size() == 2
[1, 'a'].size() == 2
{'a': 1, 1: 2}.size() == 2
{'a': 1, 'b': 2}.size() == 2
{1: 1, 1: 2}.size() == 1
{'a': self.i, 'a': 2}.size() == 1
[1, dyn('a')].size() == 2
1 == 1.0
1 < 1.5 && 2u > 1 && 1.0 == 1u
1 == dyn(1.0) && dyn(1u) == 1 && {1: 'a'}[dyn(1.0)] == 'a'
int('12') == 12 && string(12) == '12' && double('1.5') == 1.5 && bool('true') && uint('3') == 3u && string(1.5) == '1.5' && string(true) == 'true'
int('x') == 1
int(self.s) == 1
int(1.9) == 1 && int(-1.9) == -1 && uint(3.7) == 3u
int(1e20) == 1
uint(-1) == 1u
string(self.d) == '5400s' && string(duration('1.5s')) == '1.5s'
string(self.t) == '2021-05-04T03:02:01Z'
timestamp('2021-01-01T00:00:00Z') + duration('24h') == timestamp('2021-01-02T00:00:00Z')
timestamp('9999-12-31T23:59:59Z') + duration('24h') == timestamp('2021-01-02T00:00:00Z')
timestamp('2021-01-02T00:00:00Z') - timestamp('2021-01-01T00:00:00Z') == duration('24h')
timestamp('2021-01-01T23:00:00Z').getHours('+02:00') == 1 && timestamp('2021-01-01T00:00:00Z').getDayOfWeek() == 5 && timestamp('2021-01-01T00:00:00Z').getMonth() == 0
timestamp('bad') == self.t
duration('bad') == self.d
timestamp(self.s) == self.t
string(b'\xff') == ''
bytes('hi') == b'hi' && b'a' + b'b' == b'ab' && size(b'abc') == 3
type(1) == int && type('a') == string && type([]) == list && type({}) == map && type(null) == null_type && type(type(1)) == type && type(self.t) == google.protobuf.Timestamp
type(self) == map
null == null
self.s == null
self.o == null
self.opt == null
has(self.opt)
has(self.m.a) && !has(self.m.zz)
has(self.s)
has(self.l[0])
has(self.nope)
x == 1
self.l.map(self, self == 'x').size() == 2
self.l.all(1, true)
self.l.all(x, y == 1)
self.l.all(x)
self.s.nope()
nope(self.s)
self.s.contains(1)
self.l.all(x, x)
self.i
self.s.all(x, true)
!self.i
-self.s == 'a'
self.i ? true : false
self.l.map(x, self.l.map(y, x + y)).size() == 2
self.l.map(x, [x, x]).all(p, p.size() == 2)
self.ml.filter(e, e.k == 'a').all(e, e.v == 1)
self.ml.exists(e, e.k.startsWith('b') && e.v >= 2)
self.s < 'b' && self.s >= 'abc' && b'a' < b'b' && false < true
self.o.a + self.i * 2 - 3 == 12 && self.i / 2 == 3 && self.i % 4 == 3
(self.i > 3 ? self.o : self.o).a == 1
(self.i > 3 ? self.l : self.l)[0] == 'x'
(self.i > 3 ? 1 : 2) == 1
(self.i > 3 ? self.i : 2) == 7
[self.i, 2][0] == 7
{'a': self.i}['a'] == 7 && {'a': self.i}.a == 7
self.l.map(x, x)[0] == 'x'
self.m.map(k, k).size() == 2
size(self.s) == 3 && size(self.m) == 2 && size('Ünï') == 3
self.big.all(x, self.big.all(y, self.big.all(z, x + y + z > 0)))
self.big.map(x, self.big.map(y, self.big)).size() > 0
self.big.map(x, x * 2).sum() == 9900
self.big.all(x, x >= 0)
'aaaaaaaaaaaaaaaaaaaaaaaa'.matches('(a*)*b')
self.l.all(x, x.matches('[xy]')) && self.s.matches(self.l[0] + '*')
'''.strip().split('\n')
D="'"+'a'*1000+"'"
for n in (3,6,10):
    e=D
    for _ in range(n): e='[%s].map(v, v + v)[0]'%e if n<7 else e
    X.append('(%s).size() > 0'%e)
e='[1]'
for _ in range(8): e='[%s].map(v, v + v)[0]'%e
X.append('(%s).size() == 256'%e)
X.append('('*40+'1'+')'*40+' == 1')
X.append(' + '.join(['1']*60)+' == 60')
X.append(' && '.join(['true']*500))

print(HEAD)
for rule in list(dict.fromkeys(res)) + X:
    print(json.dumps(rule))
