package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

var update = flag.Bool("update", false, "rewrite the JSON in testdata/caddyfile")

const goldenDivider = "----------\n"

// TestCaddyfile promises what the Caddyfile means: each file in
// testdata/caddyfile holds one, a divider, and what becomes of it. That is the
// JSON, or else the error: every line there is a part of its text, one of them
// the place in the Caddyfile.
func TestCaddyfile(t *testing.T) {
	paths, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil || len(paths) == 0 {
		t.Fatalf("found %d files: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			caddyfile, want, found := strings.Cut(strings.ReplaceAll(string(content), "\r\n", "\n"), goldenDivider)
			if !found {
				t.Fatalf("there is no line %q", strings.TrimSpace(goldenDivider))
			}
			config, err := caddytest.Adapt(caddyfile)
			if !strings.HasPrefix(want, "{") {
				expectErrorParts(t, err, strings.Split(strings.TrimSpace(want), "\n"))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := indent(t, config)
			if *update {
				if err := os.WriteFile(path, []byte(caddyfile+goldenDivider+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func expectErrorParts(t *testing.T, err error, parts []string) {
	t.Helper()
	if err == nil {
		t.Errorf("it is accepted, want an error with: %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not contain %q: %s", part, err)
		}
	}
}

func indent(t *testing.T, config []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}
