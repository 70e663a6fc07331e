package cel

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func structuralOf(t *testing.T, raw json.RawMessage) *schema.Structural {
	var v1 apiextv1.JSONSchemaProps
	if err := yaml.Unmarshal(raw, &v1); err != nil {
		t.Fatal(err)
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&v1, &internal, nil); err != nil {
		t.Fatal(err)
	}
	s, err := schema.NewStructural(&internal)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decodeJSON(raw json.RawMessage) interface{} {
	if len(raw) == 0 {
		return nil
	}
	var v interface{}
	yaml.Unmarshal(raw, &v)
	return fix(v)
}

func fix(v interface{}) interface{} {
	switch x := v.(type) {
	case map[string]interface{}:
		for k := range x {
			x[k] = fix(x[k])
		}
		return x
	case []interface{}:
		for i := range x {
			x[i] = fix(x[i])
		}
		return x
	case float64:
		if x == float64(int64(x)) {
			return int64(x)
		}
	}
	return v
}

func lines(t *testing.T, env string) [][]byte {
	f, err := os.Open(os.Getenv(env))
	if err != nil {
		t.Skip(env)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 64<<20)
	var out [][]byte
	for sc.Scan() {
		out = append(out, append([]byte{}, sc.Bytes()...))
	}
	return out
}

// TestExpressions writes what becomes of each expression as a rule over one object.
func TestExpressions(t *testing.T) {
	in := lines(t, "CEL_EXPRESSIONS")
	var head struct{ Schema, Object json.RawMessage }
	if err := json.Unmarshal(in[0], &head); err != nil {
		t.Fatal(err)
	}
	out, _ := os.Create(os.Getenv("CEL_EXPRESSIONS_OUT"))
	defer out.Close()
	for _, line := range in[1:] {
		var expression string
		json.Unmarshal(line, &expression)
		s := withRule(*structuralOf(t, head.Schema), expression)
		results, err := Compile(&s, model.SchemaDeclType(&s, false), celconfig.PerCallLimit, environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()), StoredExpressionsEnvLoader())
		if err != nil {
			t.Fatal(err)
		}
		row := map[string]interface{}{"rule": expression}
		if results[0].Error != nil {
			row["error"] = results[0].Error.Detail
		} else {
			row["estimate"] = results[0].MaxCost
			v := NewValidator(&s, false, celconfig.PerCallLimit)
			errs, left := v.Validate(context.TODO(), field.NewPath("root"), &s, decodeJSON(head.Object), nil, celconfig.RuntimeCELCostBudget)
			row["cost"] = celconfig.RuntimeCELCostBudget - left
			row["told"] = dumpErrs(errs)
		}
		b, _ := json.Marshal(row)
		out.Write(append(b, '\n'))
	}
}

// TestObjects writes what the rules of a schema say of objects: lines of {schema: name, new, old}.
func TestObjects(t *testing.T) {
	in := lines(t, "CEL_OBJECTS")
	schemas := map[string]*schema.Structural{}
	out, _ := os.Create(os.Getenv("CEL_OBJECTS_OUT"))
	defer out.Close()
	for _, line := range in {
		var row struct {
			Name        string
			Schema      json.RawMessage
			New, Old    json.RawMessage
		}
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		if row.Schema != nil {
			schemas[row.Name] = structuralOf(t, row.Schema)
			continue
		}
		v := NewValidator(schemas[row.Name], true, celconfig.PerCallLimit)
		old := decodeJSON(row.Old)
		errs, left := v.Validate(context.TODO(), nil, schemas[row.Name], decodeJSON(row.New), old, celconfig.RuntimeCELCostBudget)
		b, _ := json.Marshal(map[string]interface{}{"kind": row.Name, "new": row.New, "old": row.Old, "told": dumpErrs(errs), "cost": celconfig.RuntimeCELCostBudget - left})
		out.Write(append(b, '\n'))
	}
}
