package main

import (
	"fmt"
	"go/ast"
	"io"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// table collects the lines of the output, one block for each named type.
type table struct {
	sources *sources
	blocks  map[string]*block
	prefix  map[string]string
}

// block is one named type.
type block struct {
	head   string
	fields map[string]string
}

// Types whose wire form is not their Go structure: the JSON form upstream's own marshalers give them.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "date-time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "micro-time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "string",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "any",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "int-or-string",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "any",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "any",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "any",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "any",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "any",
}

var basic = map[string]string{
	"string": "string", "bool": "bool", "int": "int32", "int32": "int32", "uint32": "int64", "int64": "int64",
	"uint64": "int64", "float32": "float", "float64": "double",
}

func newTable(s *sources) *table {
	return &table{sources: s, blocks: map[string]*block{}, prefix: map[string]string{}}
}

// short gives the table's name of a type and remembers what its package stands for.
func (t *table) short(path, name string) string {
	long := strings.TrimPrefix(path, "k8s.io/")
	short := long
	for _, cut := range []string{"api/", "apimachinery/pkg/apis/", "apimachinery/pkg/", "apiextensions-apiserver/pkg/apis/", "kube-aggregator/pkg/apis/"} {
		if strings.HasPrefix(long, cut) {
			short = strings.TrimPrefix(long, cut)
			break
		}
	}
	short = strings.ReplaceAll(short, "/", ".")
	t.prefix[short] = "io.k8s." + strings.ReplaceAll(long, "/", ".")
	return short + "." + name
}

// addKinds adds every type of a package that has apiVersion and kind, and what it refers to.
func (t *table) addKinds(path string) error {
	pkg, err := t.sources.open(path)
	if err != nil {
		return err
	}
	for name, d := range pkg.types {
		body, ok := d.expr.(*ast.StructType)
		if !ok || strings.HasSuffix(name, "Options") && name != "PodLogOptions" {
			continue
		}
		for _, field := range body.Fields.List {
			if selector, ok := field.Type.(*ast.SelectorExpr); ok && len(field.Names) == 0 && selector.Sel.Name == "TypeMeta" {
				if _, err := t.named(path, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// named gives the type expression that refers to a Go type, adding its block on first use.
func (t *table) named(path, name string) (string, error) {
	pkg, err := t.sources.open(path)
	if err != nil {
		return "", err
	}
	d, ok := pkg.types[name]
	if !ok {
		return "", fmt.Errorf("type %s.%s not found", path, name)
	}
	ref := t.short(path, name)
	if _, ok := t.blocks[ref]; ok {
		return ref, nil
	}
	if form, ok := special[path+"."+name]; ok {
		t.blocks[ref] = &block{head: "scalar " + ref + " " + form}
		return ref, nil
	}
	if body, ok := d.expr.(*ast.StructType); ok {
		head := "struct " + ref
		if d.markers.first("structType") == "atomic" {
			head += " atomic"
		}
		b := &block{head: head, fields: map[string]string{}}
		t.blocks[ref] = b
		return ref, t.addFields(b, pkg, d, body, "")
	}
	if d.markers.has("enum") {
		b := &block{head: "enum " + ref}
		values, err := t.sources.enum(pkg, name)
		if err != nil {
			return "", err
		}
		for _, value := range values {
			b.head += " " + strconv.Quote(value)
		}
		t.blocks[ref] = b
		return ref, nil
	}
	return t.expr(path, d, d.expr)
}

// expr gives the type expression of a Go expression.
func (t *table) expr(path string, d *decl, e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return t.expr(path, d, e.X)
	case *ast.ParenExpr:
		return t.expr(path, d, e.X)
	case *ast.Ident:
		if form, ok := basic[e.Name]; ok {
			return form, nil
		}
		return t.named(path, e.Name)
	case *ast.SelectorExpr:
		pkg := d.imports[e.X.(*ast.Ident).Name]
		if pkg == "k8s.io/apimachinery/pkg/types" {
			return "string", nil
		}
		return t.named(pkg, e.Sel.Name)
	case *ast.ArrayType:
		if item, ok := e.Elt.(*ast.Ident); ok && item.Name == "byte" {
			return "byte", nil
		}
		item, err := t.expr(path, d, e.Elt)
		return "[]" + item, err
	case *ast.MapType:
		value, err := t.expr(path, d, e.Value)
		return "{}" + value, err
	case *ast.InterfaceType:
		return "any", nil
	}
	return "", fmt.Errorf("%s.%s: unknown form of type %T", path, d.name, e)
}

// addFields adds the fields of a struct; those of inlined structs join them. An inlined struct that protobuf
// keeps as a message of its own gives its number as `outer`, with a dot; one inside another gives both.
func (t *table) addFields(b *block, pkg *source, d *decl, body *ast.StructType, outer string) error {
	for _, field := range body.Fields.List {
		tag := reflect.StructTag("")
		if field.Tag != nil {
			unquoted, _ := strconv.Unquote(field.Tag.Value)
			tag = reflect.StructTag(unquoted)
		}
		name, options, _ := strings.Cut(tag.Get("json"), ",")
		if name == "-" || (len(field.Names) > 0 && !field.Names[0].IsExported()) {
			continue
		}
		if name == "" && strings.Contains(options, "inline") {
			inside := outer
			if n := number(tag); n > 0 {
				inside += strconv.Itoa(n) + "."
			}
			if err := t.inline(b, pkg, d, field, inside); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			return fmt.Errorf("%s.%s: field without a json name", pkg.path, d.name)
		}
		line, err := t.field(pkg, d, field, tag, name, options, outer)
		if err != nil {
			return err
		}
		b.fields[name] = line
	}
	return nil
}

func (t *table) inline(b *block, pkg *source, d *decl, field *ast.Field, outer string) error {
	path, name := pkg.path, ""
	switch e := field.Type.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		path, name = d.imports[e.X.(*ast.Ident).Name], e.Sel.Name
	default:
		return fmt.Errorf("%s.%s: unknown form of inlined field %T", pkg.path, d.name, field.Type)
	}
	inner, err := t.sources.open(path)
	if err != nil {
		return err
	}
	target := inner.types[name]
	return t.addFields(b, inner, target, target.expr.(*ast.StructType), outer)
}

func (t *table) field(pkg *source, d *decl, field *ast.Field, tag reflect.StructTag, name, options string, outer string) (string, error) {
	form, err := t.expr(pkg.path, d, field.Type)
	if err != nil {
		return "", err
	}
	marks := readMarkers(field.Doc)
	required := ""
	if marks.has("required") || !(marks.has("optional") || strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")) {
		required = "!"
	} else if t.zeroAbsent(form, field.Type, options) {
		required = "~"
	}
	at := strconv.Itoa(number(tag))
	if d.name == "TypeMeta" {
		at = "0" // protobuf keeps apiVersion and kind in the envelope
	} else {
		at = outer + at
	}
	if _, bare := field.Type.(*ast.ArrayType); strings.HasPrefix(form, "[]") && !bare && strings.Contains(tag.Get("protobuf"), ",opt,") {
		at += ".1" // a list with a name of its own can be a message around its items (`Verbs`)
	}
	line := fmt.Sprintf("%s%s %s %s", name, required, at, form)
	if kind := marks.first("listType"); kind != "" {
		line += " " + kind
		if keys := marks["listMapKey"]; len(keys) > 0 {
			line += "=" + strings.Join(keys, ",")
		}
	}
	for _, marker := range []string{"structType", "mapType"} {
		if kind := marks.first(marker); kind != "" {
			line += " " + kind
		}
	}
	if strategy := tag.Get("patchStrategy"); strategy != "" {
		line += " patch=" + strategy
		if key := tag.Get("patchMergeKey"); key != "" {
			line += ":" + key
		}
	}
	if marks.has("nullable") {
		line += " nullable"
	}
	if value := marks.first("default"); value != "" {
		line += " default=" + t.value(pkg, value)
	} else if value := t.zero(form, field.Type, options, required == "!"); value != "" {
		line += " default=" + value
	}
	return line, nil
}

// zero gives what upstream writes for the field when it is unset: `{}` for a struct held by value, and the
// zero of a required scalar, list or map. (For a list upstream writes null, which readers take for empty.)
// A required enum has none: an empty one is an error.
func (t *table) zero(form string, e ast.Expr, options string, required bool) string {
	if _, pointer := e.(*ast.StarExpr); pointer || strings.Contains(options, "omitzero") {
		return ""
	}
	if b, ok := t.blocks[form]; ok {
		if strings.HasPrefix(b.head, "struct ") {
			return "{}"
		}
		return ""
	}
	if !required {
		return ""
	}
	switch {
	case form == "string":
		return `""`
	case form == "bool":
		return "false"
	case form == "int32" || form == "int64":
		return "0"
	case strings.HasPrefix(form, "[]"):
		return "[]"
	case strings.HasPrefix(form, "{}"):
		return "{}"
	}
	return ""
}

// zeroAbsent says whether "", 0, false, [] or {} in the field is the same as not setting it: a scalar, list or
// map held by value. Upstream drops it when it writes JSON, and its protobuf form cannot tell the two apart.
func (t *table) zeroAbsent(form string, e ast.Expr, options string) bool {
	if _, pointer := e.(*ast.StarExpr); pointer || !strings.Contains(options, "omitempty") {
		return false
	}
	if b, ok := t.blocks[form]; ok {
		return strings.HasPrefix(b.head, "enum ")
	}
	switch form {
	case "string", "bool", "int32", "int64", "float", "double":
		return true
	}
	return strings.HasPrefix(form, "[]") || strings.HasPrefix(form, "{}")
}

// value resolves `ref(Constant)`.
func (t *table) value(pkg *source, text string) string {
	if name, ok := strings.CutPrefix(text, "ref("); ok {
		return strconv.Quote(pkg.literals[strings.TrimSuffix(name, ")")])
	}
	return text
}

// number reads the field number out of `protobuf:"bytes,3,opt,name=x"`.
func number(tag reflect.StructTag) int {
	parts := strings.Split(tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(parts[1])
	return n
}

func (t *table) write(out io.Writer) {
	fmt.Fprintf(out, "# Generated by xtask/kinds-gen from k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator} %s. Do not edit.\n", release)
	for _, short := range sorted(t.prefix) {
		fmt.Fprintf(out, "package %s %s\n", short, t.prefix[short])
	}
	for _, name := range sorted(t.blocks) {
		b := t.blocks[name]
		fmt.Fprintln(out, b.head)
		for _, field := range sorted(b.fields) {
			fmt.Fprintln(out, " "+b.fields[field])
		}
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
