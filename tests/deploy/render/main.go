// Renders a chart as `helm template` does, as far as the chart of this project needs it: text/template, and the functions below.
//
//	render CHART RELEASE VALUES.json    values and Chart.yaml as JSON: {"values": …, "chart": …}; prints the manifests
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func indent(count int, text string) string {
	return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", count))
}

// yaml writes maps in block style, as the lines of a chart are beside them, and everything else as JSON, which is YAML.
func yaml(value any, depth int) string {
	fields, isMap := value.(map[string]any)
	if !isMap || len(fields) == 0 {
		text, err := json.Marshal(value)
		fail(err)
		return " " + string(text)
	}
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	sort.Strings(names)
	var lines strings.Builder
	for _, name := range names {
		lines.WriteString("\n" + strings.Repeat("  ", depth) + name + ":" + yaml(fields[name], depth+1))
	}
	return lines.String()
}

func main() {
	chart, release := os.Args[1], os.Args[2]
	given, err := os.ReadFile(os.Args[3])
	fail(err)
	var input struct {
		Values map[string]any `json:"values"`
		Chart  map[string]any `json:"chart"`
	}
	fail(json.Unmarshal(given, &input))

	root := template.New("chart").Option("missingkey=error")
	root.Funcs(template.FuncMap{
		"toYaml":     func(value any) string { return strings.TrimPrefix(yaml(value, 0), "\n") },
		"nindent":    func(count int, text string) string { return "\n" + strings.Repeat(" ", count) + indent(count, text) },
		"quote":      func(value any) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"trunc":      func(count int, text string) string { return text[:min(count, len(text))] },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"default": func(fallback, value any) any {
			if value == nil || value == "" {
				return fallback
			}
			return value
		},
		"sha256sum": func(text string) string {
			sum := sha256.Sum256([]byte(text))
			return hex.EncodeToString(sum[:])
		},
		"include": func(name string, data any) (string, error) {
			var text bytes.Buffer
			err := root.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
	})
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	fail(err)
	sort.Strings(files)
	base := filepath.Join(fmt.Sprint(input.Chart["name"]), "templates")
	for _, file := range files {
		text, err := os.ReadFile(file)
		fail(err)
		_, err = root.New(filepath.Join(base, filepath.Base(file))).Parse(string(text))
		fail(err)
	}
	data := map[string]any{
		"Values":   input.Values,
		"Chart":    map[string]any{"Name": input.Chart["name"], "AppVersion": input.Chart["appVersion"]},
		"Release":  map[string]any{"Name": release, "Service": "Helm"},
		"Template": map[string]any{"BasePath": base},
	}
	for _, file := range files {
		if filepath.Ext(file) == ".yaml" {
			fmt.Println("---")
			fail(root.ExecuteTemplate(os.Stdout, filepath.Join(base, filepath.Base(file)), data))
		}
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
