// How Kubernetes' Go types stand on the wire as protobuf: what their struct tags say, by reflection.
//
// `cargo xtask codegen` runs this in a temporary module; its output is the table, a definition a line:
// {"kinds": {"GROUP/VERSION/KIND": DEFINITION}, "types": {DEFINITION: ["NUMBER|NAME|FORM|FLAGS", …]}}.
// Form: string, bool, int (any width), bytes, double, time, microtime, quantity, intorstring, raw (JSON in bytes),
// duration, orarray, orbool, orstrings (a JSON schema or what the word says, as custom resource definitions have them), or a
// definition; with `[]` before it for a list, `{}` for a map from strings.
// Flags: p a pointer (absent and zero differ), e omitempty, z omitzero, i a message whose fields stand in its parent in
// JSON, w a list that is wrapped into a message of its own: as the value of a map, or discovery's verbs.
package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	autoscaling2 "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	flowcontrol "k8s.io/api/flowcontrol/v1"
	networking "k8s.io/api/networking/v1"
	node "k8s.io/api/node/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	resource1 "k8s.io/api/resource/v1"
	scheduling "k8s.io/api/scheduling/v1"
	storage "k8s.io/api/storage/v1"
	storagemigration "k8s.io/api/storagemigration/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var forms = map[reflect.Type]string{
	reflect.TypeFor[meta.Time]():            "time",
	reflect.TypeFor[meta.MicroTime]():       "microtime",
	reflect.TypeFor[meta.Duration]():        "duration",
	reflect.TypeFor[meta.FieldsV1]():        "raw",
	reflect.TypeFor[runtime.RawExtension](): "raw",
	reflect.TypeFor[resource.Quantity]():    "quantity",
	reflect.TypeFor[intstr.IntOrString]():   "intorstring",

	reflect.TypeFor[apiextensions.JSON]():                         "raw",
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrArray]():       "orarray",
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrBool]():        "orbool",
	reflect.TypeFor[apiextensions.JSONSchemaPropsOrStringArray](): "orstrings",
}

var types = map[string][]string{}

// definition is a type's name in the OpenAPI document: its package with the domain reversed.
func definition(t reflect.Type) string {
	domain, path, _ := strings.Cut(t.PkgPath(), "/")
	labels := strings.Split(domain, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

// form of a type that is no pointer, list or map.
func form(t reflect.Type) string {
	if known, ok := forms[t]; ok {
		return known
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "int"
	case reflect.Float64:
		return "double"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
	case reflect.Struct:
		walk(t)
		return definition(t)
	}
	panic(fmt.Sprintf("%v has no form", t))
}

func walk(t reflect.Type) {
	name := definition(t)
	if _, known := types[name]; known {
		return
	}
	types[name] = []string{}
	fields := []string{}
	for i := range t.NumField() {
		field := t.Field(i)
		tag := strings.Split(field.Tag.Get("protobuf"), ",")
		if !field.IsExported() || len(tag) < 2 {
			continue
		}
		jsonName, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		flags := ""
		if field.Anonymous && jsonName == "" {
			flags += "i"
		} else if jsonName == "" || jsonName == "-" {
			continue
		}
		if strings.Contains(options, "omitempty") {
			flags += "e"
		}
		if strings.Contains(options, "omitzero") {
			flags += "z"
		}
		inner, prefix := field.Type, ""
		if inner.Kind() == reflect.Pointer {
			inner, flags = inner.Elem(), flags+"p"
		}
		switch {
		case inner.Kind() == reflect.Map:
			inner, prefix = inner.Elem(), "{}"
			if inner.Kind() == reflect.Slice && inner.Elem().Kind() != reflect.Uint8 {
				inner, flags = inner.Elem(), flags+"w"
			}
		case inner.Kind() == reflect.Slice && inner.Elem().Kind() != reflect.Uint8:
			inner, prefix = inner.Elem(), "[]"
			if tag[2] == "opt" {
				flags += "w"
			}
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		fields = append(fields, strings.Join([]string{tag[1], jsonName, prefix + form(inner), flags}, "|"))
	}
	types[name] = fields
}

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistration.AddToScheme, apps.AddToScheme, authentication.AddToScheme, authorization.AddToScheme,
		autoscaling.AddToScheme, autoscaling2.AddToScheme, batch.AddToScheme, certificates.AddToScheme,
		coordination.AddToScheme, core.AddToScheme, discovery.AddToScheme, events.AddToScheme, flowcontrol.AddToScheme,
		networking.AddToScheme, node.AddToScheme, policy.AddToScheme, rbac.AddToScheme, resource1.AddToScheme,
		scheduling.AddToScheme, storage.AddToScheme, storagemigration.AddToScheme, apiextensions.AddToScheme,
		apiregistration.AddToScheme,
		meta.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	kinds := map[string]string{}
	for kind, t := range scheme.AllKnownTypes() {
		if kind.Version == "__internal" || kind.Kind == "WatchEvent" {
			continue
		}
		walk(t)
		kinds[kind.Group+"/"+kind.Version+"/"+kind.Kind] = definition(t)
	}
	// What answers of any group may be.
	for _, t := range []reflect.Type{
		reflect.TypeFor[meta.Status](), reflect.TypeFor[meta.APIVersions](), reflect.TypeFor[meta.APIGroup](),
		reflect.TypeFor[meta.APIGroupList](), reflect.TypeFor[meta.APIResourceList](), reflect.TypeFor[meta.WatchEvent](),
	} {
		walk(t)
		kinds["/v1/"+t.Name()] = definition(t)
	}
	// A definition a line, so that a change shows what changed.
	lines := func(name string, count int, line func(int) (string, any)) {
		fmt.Printf("%q:{\n", name)
		for i := range count {
			key, value := line(i)
			text, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			comma := ","
			if i == count-1 {
				comma = ""
			}
			fmt.Printf("%q:%s%s\n", key, text, comma)
		}
		fmt.Print("}")
	}
	sorted := func(keys []string) []string { sort.Strings(keys); return keys }
	kindNames, typeNames := []string{}, []string{}
	for key := range kinds {
		kindNames = append(kindNames, key)
	}
	for key := range types {
		typeNames = append(typeNames, key)
	}
	fmt.Print("{")
	lines("kinds", len(kinds), func(i int) (string, any) { key := sorted(kindNames)[i]; return key, kinds[key] })
	fmt.Print(",\n")
	lines("types", len(types), func(i int) (string, any) { key := sorted(typeNames)[i]; return key, types[key] })
	fmt.Println("}")
}
