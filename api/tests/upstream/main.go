// Prints what Kubernetes' own packages answer to the inputs of one table, as tab-separated JSON values.
//
//	go run . quantities | labels | fields | times | names
//
// The tables beside this folder were made with it; CI reads them and needs no Go.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

func row(columns ...any) {
	texts := make([]string, len(columns))
	for i, column := range columns {
		var text strings.Builder
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(column); err != nil {
			panic(err)
		}
		texts[i] = strings.TrimSuffix(text.String(), "\n")
	}
	fmt.Println(strings.Join(texts, "\t"))
}

func message(err error) any {
	if err == nil {
		return nil
	}
	return err.Error()
}

// input, error, canonical text, in thousandths, rounded up to whole units
func quantities() {
	suffixes := []string{"", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
		"e0", "e1", "e-1", "E3", "e3", "e+3", "e6", "e18", "e-9", "e-12", "E-3"}
	numbers := []string{"0", "00", "-0", "1", "+1", "-1", "01", "7", "8", "10", "100", "512", "1000", "1023", "1024", "1025",
		"1536", "2048", "1000000", "1048576", "1073741824", "128974848000", "9223372036854775807", "9223372036854775808",
		".5", "0.5", "-0.5", "1.", "1.0", "1.5", "1.500", "2.7", "0.1", "0.001", "0.0001", "0.25", "1.25", "12.345", "+2.5",
		"0.000000001", "0.0000000001", "1.0000000001", "-1.0000000001", "0.9999999999", "999999999999999.999",
		"123456789012345678", "1234567890123456789", "0.333333333333333333333333333333", "1.1111111111111111111111111111"}
	inputs := []string{"", "1x", "1 Gi", "1gi", "1mi", "1kI", "1i", "1KI", "1Kii", "1..2", "1.2.3", "--1", "-+1", "1e", "1E+", "1e1.5", "1e3k",
		"1ee3", "1e3e3", "0x10", "1,5", "1_000", "5e-4", "1e-1", "1K", "1g", "1t", "1mm", "½", "1e-100", " 1", "1 ", "1Gi ", "NaN", "Inf", "e3", "-.5", "+.5Gi", ".5i", "-3.01e-"}
	for _, number := range numbers {
		for _, suffix := range suffixes {
			inputs = append(inputs, number+suffix)
		}
	}
	for _, input := range inputs {
		quantity, err := resource.ParseQuantity(input)
		if err != nil {
			row(input, err.Error())
			continue
		}
		row(input, nil, quantity.String(), quantity.MilliValue(), quantity.Value())
	}
}

// input, error, canonical text, label sets with whether each is selected
func selectors() {
	sets := []labels.Set{{}, {"a": ""}, {"a": "1"}, {"a": "2", "b": "x"}, {"a": "10"}, {"in": "in", "notin": "1"}, {"weft.dev/x": "5"}, {"a": "-3"}, {"a": "99999999999999999999"}}
	long := strings.Repeat("l", 64)
	for _, input := range []string{
		"", " ", ",", "a", "!a", "! a", "!!a", "a,", ",a", "a,,b", "a=1", "a==1", "a===1", "a = 1", "a=", "a=,b", "a!=1", "a!=", "a =! 1", "a=!1",
		"a in (1,2)", "a in (1, 2),b", "a in ()", "a in (,)", "a in (1,)", "a in (,1)", "a in (1,,2)", "a in(1)", "a notin (1)", "a notin(1,2),b=x",
		"a in 1", "a in (1", "a in 1)", "a in (1 2)", "a in (1)(2)", "a in (1)b", "a in", "a notin", "a in (in,notin)", "in in (in)", "notin in (1)", "in", "notin", "!in", "in=in", "a=in", "a=notin",
		"a foo (b)", "a foo", "a b", "a(b)", "a)", "(a)", "a=b c", "a=b=c", "a=(b)", "a>1", "a<2", "a > 1", "a>", "a<", "a>x", "a>1.5", "a>-5", "a<99999999999999999999", "a>=1", "a<=1", "a=>1", "a<>1", "a>1,a<11", "a>1 2", "a>(1)",
		"-a", "a-", "a=-1", "a=b/c", "weft.dev/x", "weft.dev/x=5", "weft.dev/x>4", "/a", "a/", "a/b/c", "A/b", "a_b/c", "é", "a=é", long, "a=" + long, "p/" + long, strings.Repeat("p", 254) + "/a", long + "l" + "=-",
		"a\t=\n1", "b=x,a=2", "a in (2,1)", "a!=1,a!=2", "x=a,x!=a", "=1", "!=1", "!", "!a=1", "!a in (1)", "a in (1),", "a=1,!", "a=1,=", "a=1)", "a=1(",
	} {
		selector, err := labels.Parse(input)
		if err != nil {
			row(input, err.Error())
			continue
		}
		var matches []bool
		for _, set := range sets {
			matches = append(matches, selector.Matches(set))
		}
		row(input, nil, selector.String(), sets, matches)
	}
}

// input, error, requirements as field, operator, value
func fieldSelectors() {
	for _, input := range []string{
		"", ",", "metadata.name=a", "metadata.name==a", "metadata.name!=a", "metadata.name=", "metadata.name!=", "a=1,b!=2", "b!=2,a=1", "nonsense", "a=1,nonsense", "=x", "a=b=c", "a==b=c", "a===b",
		`a=x\,y`, `a=x\=y`, `a=x\\y`, `a=x\y`, `a=x\`, `a\,b=c`, `a=1\,`, "a =b", "a= b", " a=b ", "a!b", "a=!b", "a!==b", ",,a=1,,",
	} {
		selector, err := fields.ParseSelector(input)
		if err != nil {
			row(input, err.Error())
			continue
		}
		terms := [][]string{}
		for _, term := range selector.Requirements() {
			terms = append(terms, []string{term.Field, string(term.Operator), term.Value})
		}
		row(input, nil, terms)
	}
}

// input, error and form as a Time, error and form as a MicroTime
func times() {
	for _, input := range []string{
		"2026-11-22T10:04:05Z", "2026-11-22T10:04:05.1Z", "2026-11-22T10:04:05.123456Z", "2026-11-22T10:04:05.123456789Z", "2026-11-22T10:04:05.1234567891234Z", "2026-11-22T10:04:05.000000Z", "2026-11-22T10:04:05.999999999Z",
		"2026-11-22T10:04:05+02:00", "2026-11-22T10:04:05.5-07:30", "2026-11-22T10:04:05.123456+02:00", "2026-11-22T10:04:05+00:00", "2026-11-22T10:04:05-00:00", "2026-11-22T10:04:05.000000-00:00", "2026-11-22T10:04:05+24:00", "2026-11-22T10:04:05+23:59", "2026-11-22T10:04:05+25:00", "2026-11-22T10:04:05+12:60", "2026-11-22T10:04:05+0200", "2026-11-22T10:04:05+02",
		"2026-11-22t10:04:05Z", "2026-11-22T10:04:05z", "2026-11-22 10:04:05Z", "2026-11-22T10:04:05", "2026-11-22T10:04Z", "2026-11-22", "20261122T100405Z", "2026-1-2T10:04:05Z", "2026-11-22T1:04:05Z", "2026-11-22T10:4:05Z", "26-11-22T10:04:05Z",
		"2026-11-22T24:00:00Z", "2026-11-22T23:60:00Z", "2026-11-22T23:59:60Z", "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "1900-02-29T00:00:00Z", "2000-02-29T00:00:00Z",
		"0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z", "0000-01-01T00:00:00Z", "0000-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.500000Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z", "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "0001-01-01T01:00:00.000000+01:00",
		"2026-11-22T10:04:05,5Z", "2026-11-22T10:04:05.Z", "2026-11-22T10:04:05.12345Z", "2026-11-22T10:04:05.1234567Z", "2026-11-22T10:04:05,123456Z", " 2026-11-22T10:04:05Z", "2026-11-22T10:04:05Z ", "2026-11-22T10:04:05Zx", "2026-11-22T10:04:05ZZ", "2026-11-22T10:04:05+02:00x", "yesterday", "", "null", "1700000000", "2026-11-22T10:04:05.5.5Z", "2026-11-22T10:04:05 Z", "2026-11-22T10:04:05UTC", "2026-11-22T10:04:05.123456 Z", "２０26-11-22T10:04:05Z", "\"q\"", "2026-11-22T10:04:5Z", "2026-11-22T1٠:04:05Z", "2026-11-22T10:04:05-2:00", "2026-11-22T10:04:05-02:0", "2026-11-22T10:04:05−02:00",
	} {
		quoted, _ := json.Marshal(input)
		var time metav1.Time
		var micro metav1.MicroTime
		timeErr := time.UnmarshalJSON(quoted)
		microErr := micro.UnmarshalJSON(quoted)
		timeText, _ := time.MarshalJSON()
		microText, _ := micro.MarshalJSON()
		row(input, message(timeErr), json.RawMessage(timeText), message(microErr), json.RawMessage(microText))
	}
}

// rule, input, messages
func names() {
	long := strings.Repeat("l", 64)
	inputs := []string{"", "a", "A", "-a", "a-", "a.b", "a..b", ".a", "a.", "a_b", "1a", "9", "a b", "é", "a/b", "/a", "a/", "a/b/c", "weft.dev/isolation", "Weft.dev/x", "a_b/c", "..", ".", "a%b", "a=b", "=", long[:63], long, long + "_", "-" + long, "x/" + long, strings.Repeat("p.", 126) + "p", strings.Repeat("p.", 127), strings.Repeat("p.", 127) + "/a", "a\x00"}
	rules := []struct {
		name  string
		check func(string) []string
	}{
		{"dns1123_label", validation.IsDNS1123Label},
		{"dns1123_subdomain", validation.IsDNS1123Subdomain},
		{"dns1035_label", validation.IsDNS1035Label},
		{"qualified_name", validation.IsQualifiedName},
		{"label_value", validation.IsValidLabelValue},
		{"config_key", validation.IsConfigMapKey},
		{"env_name", validation.IsRelaxedEnvVarName},
		{"port_name", validation.IsValidPortName},
	}
	for _, rule := range rules {
		for _, input := range inputs {
			row(rule.name, input, append([]string{}, rule.check(input)...))
		}
	}
}

func main() {
	tables := map[string]func(){"quantities": quantities, "labels": selectors, "fields": fieldSelectors, "times": times, "names": names}
	if len(os.Args) != 2 || tables[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go run . quantities|labels|fields|times|names")
		os.Exit(2)
	}
	tables[os.Args[1]]()
}
