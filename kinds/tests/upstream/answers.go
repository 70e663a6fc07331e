package cel

import (
	"encoding/json"
	"os"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var dumpMu sync.Mutex
var dumpFile *os.File

func dump(v map[string]interface{}) {
	path := os.Getenv("CEL_DUMP")
	if path == "" {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	dumpMu.Lock()
	defer dumpMu.Unlock()
	if dumpFile == nil {
		dumpFile, _ = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	}
	dumpFile.Write(append(b, '\n'))
}

func dumpErrs(errs field.ErrorList) []interface{} {
	out := []interface{}{}
	for _, e := range errs {
		f := strings.TrimPrefix(strings.TrimPrefix(e.Field, "root"), ".")
		out = append(out, []string{string(e.Type), f, e.ErrorBody()})
	}
	return out
}

func dumpValidate(s *Validator, opts []Option, obj, oldObj interface{}, budget int64, errs field.ErrorList, remaining int64) {
	if s == nil {
		return
	}
	b, _ := json.Marshal(s.Schema.ToKubeOpenAPI())
	dump(map[string]interface{}{"what": "validate", "schema": json.RawMessage(b), "root": s.isResourceRoot, "ratchets": len(opts) > 0, "new": obj, "old": oldObj, "budget": budget, "errors": dumpErrs(errs), "remaining": remaining})
}

func dumpCompile(s *schema.Structural, results []CompilationResult) {
	b, _ := json.Marshal(s.ToKubeOpenAPI())
	rules := []interface{}{}
	for _, r := range results {
		m := map[string]interface{}{"cost": r.MaxCost, "cardinality": r.MaxCardinality, "usesOldSelf": r.UsesOldSelf, "messageCost": r.MessageExpressionMaxCost, "fieldPath": r.NormalizedRuleFieldPath, "empty": r.Program == nil && r.Error == nil}
		if r.Error != nil {
			m["error"] = r.Error.Detail
		}
		if r.MessageExpressionError != nil {
			m["messageError"] = r.MessageExpressionError.Detail
		}
		rules = append(rules, m)
	}
	dump(map[string]interface{}{"what": "compile", "schema": json.RawMessage(b), "rules": rules})
}
