package caddysse_test

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"

	_ "github.com/caddy-sse/caddy-sse"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main{M: m}.Run()) }

const module = "github.com/caddy-sse/caddy-sse"

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		found = append(found, p)
	}
	return found
}

// Who may import whom keeps the library free of the server, and the skin at
// the edge.
func TestImports(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imported := range p.Imports {
			ours := strings.HasPrefix(imported, module)
			standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
			switch {
			case p.ImportPath == module+"/sse" && !standard && imported != "golang.org/x/sys/unix":
				t.Errorf("package sse imports %s; it uses the standard library, and golang.org/x/sys/unix for sockets", imported)
			case imported == module+"/caddymodule" && p.ImportPath != module:
				t.Errorf("%s imports caddymodule, which only the root package may", p.ImportPath)
			case imported == module && p.ImportPath != module+"/cmd/caddy":
				t.Errorf("%s imports the plugin, which only cmd/caddy may", p.ImportPath)
			case strings.HasPrefix(p.ImportPath, module+"/sse/") && ours && imported != module+"/sse" && imported != module+"/sse/ssetest":
				t.Errorf("%s imports %s; brokers know the library alone", p.ImportPath, imported)
			case strings.HasPrefix(imported, "github.com/redis/") && p.ImportPath != module+"/sse/redisbroker":
				t.Errorf("%s imports %s, which is the Redis broker's own affair", p.ImportPath, imported)
			case imported == module+"/internal/redistest":
				t.Errorf("%s imports redistest, which is for tests", p.ImportPath)
			case strings.HasPrefix(p.ImportPath, module+"/examples/") && ours:
				t.Errorf("%s imports %s; an example is an app like any other and imports nothing of ours", p.ImportPath, imported)
			}
		}
	}
}

// Every package says what it is for, and every exported thing what it does.
func TestDocumented(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" {
			t.Errorf("package %s has no documentation", p.ImportPath)
		}
	}
	exported := regexp.MustCompile(`^(func (\([^)]*\) )?|type )[A-Z]`)
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text := readFile(t, path)
		if _, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments); err != nil {
			t.Error(err)
		}
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			method := strings.HasPrefix(line, "func (")
			if exported.MatchString(line) && !method && !strings.HasPrefix(lines[i-1], "//") {
				t.Errorf("%s:%d: no comment on %s", path, i+1, line)
			}
		}
	}
}

func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	for _, p := range listPackages(t) {
		found, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns the fenced blocks of a language in a Markdown file.
func blocks(t *testing.T, path, language string) (found []string) {
	t.Helper()
	fence := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$")
	for _, m := range fence.FindAllStringSubmatch(readFile(t, path), -1) {
		found = append(found, m[1])
	}
	return found
}

func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"README.md"}, docs...)
}

// What the documentation tells an operator to write is accepted.
func TestDocumentedCaddyfiles(t *testing.T) {
	n := 0
	for _, path := range documents(t) {
		for _, caddyfile := range blocks(t, path, "caddyfile") {
			n++
			if _, err := caddytest.Adapt(caddyfile); err != nil {
				t.Errorf("%s: %s in\n%s", path, err, caddyfile)
			}
		}
	}
	if n < 4 {
		t.Errorf("found only %d Caddyfiles in the documentation", n)
	}
	if _, err := caddytest.Adapt(readFile(t, "Caddyfile.example")); err != nil {
		t.Errorf("Caddyfile.example: %s", err)
	}
}

// What the documentation tells a user to type works: each curl command that publishes is
// answered 200, and reaches a stream that is subscribed as the README says if
// that listens to its channel.
func TestDocumentedCommands(t *testing.T) {
	site, admin := caddytest.FreePort(t), caddytest.FreePort(t)
	ports := strings.NewReplacer(
		"localhost:8080", fmt.Sprintf("localhost:%d", site),
		"localhost:2019", fmt.Sprintf("localhost:%d", admin),
	)
	readme := ports.Replace(blocks(t, "README.md", "caddyfile")[0])
	caddytest.Load(t, fmt.Sprintf("{\n\tadmin localhost:%d\n}\n%s", admin, readme))
	stream := ssetest.Open(t, nil, fmt.Sprintf("http://localhost:%d/events?channel=news&channel=stocks-*", site), http.Header{})
	stream.Expect("hub:open")

	n, received := 0, 0
	for _, path := range []string{"README.md", "docs/publishing.md"} {
		for _, command := range blocks(t, path, "sh") {
			if strings.Contains(command, "curl -N") {
				continue // it would not end; the stream above stands for it
			}
			n++
			command = strings.Replace(ports.Replace(command), "curl ", "curl --silent --show-error --fail ", 1)
			out, err := exec.Command("sh", "-c", command).CombinedOutput()
			if err != nil || !strings.Contains(string(out), `"subscribers":`) {
				t.Fatalf("%s: %v\n%s%s", path, err, command, out)
			}
			for range strings.Count(string(out), `"subscribers":1`) {
				t.Logf("received %+v", stream.Next())
				received++
			}
		}
	}
	if n < 4 || received < n {
		t.Errorf("found %d commands in the documentation, which made %d events for the stream", n, received)
	}
}

// The README names only targets that the Makefile has.
func TestDocumentedTargets(t *testing.T) {
	makefile := readFile(t, "Makefile")
	for _, path := range append(documents(t), "CONTRIBUTING.md") {
		for _, m := range regexp.MustCompile("(?m)(?:^    |`)make ([a-z]+)").FindAllStringSubmatch(readFile(t, path), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which the Makefile lacks", path, m[1])
			}
		}
	}
}

var heldBy = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")

// Each line of the threat model is held by a test, which must be there.
func TestSecurityIsTested(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool)
	err = filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`).FindAllStringSubmatch(string(code), -1) {
			tests[found[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := heldBy.FindAllStringSubmatch(string(text), -1)
	if len(named) < 30 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
	for _, name := range named {
		if !tests[name[1]] {
			t.Errorf("SECURITY.md names %s, which is no test", name[1])
		}
	}
}
