#!/bin/sh
# Makes the tables beside this again, in the folder that it runs in. Needs Go 1.26, Python 3 with PyYAML, and cel-spec's tests/simple/testdata in spec/.
set -eu
version=v0.37.2
go mod download k8s.io/apiextensions-apiserver@$version sigs.k8s.io/gateway-api@v1.6.3
modules=$(go env GOMODCACHE)
here=$(pwd)
package=$here/package
rm -rf "$package"; cp -r "$modules/k8s.io/apiextensions-apiserver@$version" "$package"; chmod -R u+w "$package"
cel=$package/pkg/apiserver/schema/cel
cp answers.go answers_test.go "$cel"
python3 - "$cel" <<'END'
import sys
cel, = sys.argv[1:]
def change(name, old, new):
    text = open(f"{cel}/{name}").read()
    assert old in text, name
    open(f"{cel}/{name}", "w").write(text.replace(old, new, 1))
change("validation.go", "\treturn s.validate(ctx, fldPath, obj, oldObj, opt.ratchetingOptions, costBudget)\n}\n",
    "\terrs, remainingBudget = s.validate(ctx, fldPath, obj, oldObj, opt.ratchetingOptions, costBudget)\n"
    "\tdumpValidate(s, opts, obj, oldObj, costBudget, errs, remainingBudget)\n\treturn errs, remainingBudget\n}\n")
change("compilation.go", "\treturn compResults, nil\n}\n", "\tdumpCompile(s, compResults)\n\treturn compResults, nil\n}\n")
END
python3 expressions.py spec > expressions.in
python3 gateway.py "$modules/sigs.k8s.io/gateway-api@v1.6.3/config/crd" > gateways.in
python3 definitions.py "$modules/sigs.k8s.io/gateway-api@v1.6.3/config/crd" | python3 pack.py > definitions.lz4
rm -f dump
cd "$package"
CEL_EXPRESSIONS=$here/expressions.in CEL_EXPRESSIONS_OUT=$here/expressions.out CEL_OBJECTS=$here/gateways.in CEL_OBJECTS_OUT=$here/gateways.out \
    go test -count 1 -run 'TestExpressions$|TestObjects' ./pkg/apiserver/schema/cel
CEL_DUMP=$here/dump go test -count 1 -skip 'Recursion|Large|ContextCancel|TestExpressions$|TestObjects' ./pkg/apiserver/schema/cel
cd "$here"
{ head -n 1 expressions.in; cat expressions.out; } | python3 pack.py > expressions.lz4
grep '"what":"validate"' dump | python3 pack.py > validations.lz4
grep '"what":"compile"' dump | python3 pack.py > compilations.lz4
python3 pack.py < gateways.out > gateways.lz4
