package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// sources parses packages on demand.
type sources struct {
	dirs     map[string]string
	packages map[string]*source
}

// source is one parsed package: its types, the markers above them and the string constants of each type.
type source struct {
	path      string
	types     map[string]*decl
	constants map[string][]constant
	literals  map[string]string
}

// constant is one value of a type, written out or as the name of a constant of another package.
type constant struct {
	expr    ast.Expr
	imports map[string]string
}

// decl is one type declaration.
type decl struct {
	name    string
	expr    ast.Expr
	markers markers
	imports map[string]string
}

func newSources(dirs map[string]string) *sources {
	return &sources{dirs: dirs, packages: map[string]*source{}}
}

func (s *sources) open(path string) (*source, error) {
	if known, ok := s.packages[path]; ok {
		return known, nil
	}
	dir := ""
	for module, at := range s.dirs {
		if path == module || strings.HasPrefix(path, module+"/") {
			dir = filepath.Join(at, strings.TrimPrefix(path, module))
		}
	}
	if dir == "" {
		return nil, fmt.Errorf("package %s is in none of the pinned modules", path)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	pkg := &source{path: path, types: map[string]*decl{}, constants: map[string][]constant{}, literals: map[string]string{}}
	set := token.NewFileSet()
	for _, name := range files {
		base := filepath.Base(name)
		if strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, "zz_generated") || strings.HasPrefix(base, "generated.") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		pkg.read(set, file)
	}
	s.packages[path] = pkg
	return pkg, nil
}

func (p *source) read(set *token.FileSet, file *ast.File) {
	imports := map[string]string{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = path
	}
	for _, d := range file.Decls {
		general, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		switch general.Tok {
		case token.TYPE:
			for _, spec := range general.Specs {
				t := spec.(*ast.TypeSpec)
				doc := t.Doc
				if doc == nil {
					doc = general.Doc
				}
				p.types[t.Name.Name] = &decl{t.Name.Name, t.Type, readMarkers(doc, detached(set, file, doc, general.Pos())), imports}
			}
		case token.CONST:
			p.readConstants(general, imports)
		}
	}
}

// detached finds the comment block that a blank line separates from the declaration's own: upstream puts some
// markers there, and its generators read them.
func detached(set *token.FileSet, file *ast.File, doc *ast.CommentGroup, at token.Pos) *ast.CommentGroup {
	start := at
	if doc != nil {
		start = doc.Pos()
	}
	line := set.Position(start).Line
	for _, group := range file.Comments {
		if set.Position(group.End()).Line == line-2 {
			return group
		}
	}
	return nil
}

func (p *source) readConstants(general *ast.GenDecl, imports map[string]string) {
	for _, spec := range general.Specs {
		v := spec.(*ast.ValueSpec)
		for i, name := range v.Names {
			if i >= len(v.Values) {
				continue
			}
			of, value := v.Type, v.Values[i]
			if call, ok := value.(*ast.CallExpr); ok && len(call.Args) == 1 {
				of, value = call.Fun, call.Args[0]
			}
			if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				p.literals[name.Name], _ = strconv.Unquote(literal.Value)
			}
			if named, ok := of.(*ast.Ident); ok {
				p.constants[named.Name] = append(p.constants[named.Name], constant{value, imports})
			}
		}
	}
}

// enum gives the sorted values of a type marked +enum.
func (s *sources) enum(p *source, name string) ([]string, error) {
	seen := map[string]bool{}
	values := []string{}
	for _, c := range p.constants[name] {
		value := ""
		switch e := c.expr.(type) {
		case *ast.BasicLit:
			value, _ = strconv.Unquote(e.Value)
		case *ast.SelectorExpr:
			other, err := s.open(c.imports[e.X.(*ast.Ident).Name])
			if err != nil {
				return nil, err
			}
			value = other.literals[e.Sel.Name]
		default:
			return nil, fmt.Errorf("%s.%s: unknown form of constant %T", p.path, name, e)
		}
		if !seen[value] {
			seen[value] = true
			values = append(values, value)
		}
	}
	sort.Strings(values)
	return values, nil
}

// markers are `+name=value` comment lines.
type markers map[string][]string

func readMarkers(groups ...*ast.CommentGroup) markers {
	found := markers{}
	for _, group := range groups {
		if group == nil {
			continue
		}
		for _, comment := range group.List {
			text, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(comment.Text, "//")), "+")
			if !ok {
				continue
			}
			name, value, _ := strings.Cut(text, "=")
			name = strings.TrimSpace(name)
			found[name] = append(found[name], strings.TrimSpace(value))
		}
	}
	return found
}

func (m markers) has(name string) bool {
	_, ok := m[name]
	return ok
}

func (m markers) first(name string) string {
	if values := m[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}
