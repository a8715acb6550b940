package caddytest

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// Adapt turns a Caddyfile into Caddy's JSON. Warnings, other than that of the
// formatting, are errors.
func Adapt(caddyfile string) ([]byte, error) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, warnings, err := adapter.Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		if w.Message != "Caddyfile input is not formatted; run 'caddy fmt --overwrite' to fix inconsistencies" {
			return nil, fmt.Errorf("%s", w)
		}
	}
	return config, nil
}

// Load runs a Caddyfile in this process until the test ends. Loading another
// one before that is a reload. There is one Caddy in a process, so tests that
// use it must not run in parallel.
//
// The Caddyfile's global options should hold `admin off`, or an admin address
// with a free port, and nothing that needs the network: TLS is that of `tls
// internal`.
func Load(t testing.TB, caddyfile string) {
	t.Helper()
	if err := TryLoad(t, caddyfile); err != nil {
		t.Fatal(err)
	}
}

// TryLoad is Load for a Caddyfile that may be refused.
func TryLoad(t testing.TB, caddyfile string) error {
	t.Helper()
	config, err := Adapt(caddyfile)
	if err != nil {
		return err
	}
	return LoadJSON(t, config)
}

// LoadJSON is TryLoad for a configuration in JSON.
func LoadJSON(t testing.TB, config []byte) error {
	t.Helper()
	isolate(t)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stop Caddy: %s", err)
		}
	})
	before := serving()
	err := caddy.Load(noPersist(t, config), true)
	awaitListeners(before, err)
	return err
}

// listenersTimeout bounds the wait for listeners to close. Those of the admin
// endpoint may stay.
const listenersTimeout = time.Second

// awaitListeners returns when the listeners are closed of the configuration
// that went: the former one, or that which could not be loaded. Each has sockets
// of its own, among which the system spreads connections until one is closed,
// and Caddy returns from loading before that. It polls, since nothing tells.
func awaitListeners(before map[string]bool, failed error) {
	for deadline := time.Now().Add(listenersTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		waiting := false
		for goroutine := range serving() {
			waiting = waiting || before[goroutine] == (failed == nil)
		}
		if !waiting {
			return
		}
	}
}

// serving returns the names of the goroutines that accept connections for
// servers.
func serving() map[string]bool {
	stacks := make([]byte, 16<<20) // 2,000 connections fill some
	stacks = stacks[:runtime.Stack(stacks, true)]
	found := make(map[string]bool)
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "net/http.(*Server).Serve(") && !strings.Contains(stack, "replaceLocalAdminServer") {
			name, _, _ := strings.Cut(stack, " [")
			found[name] = true
		}
	}
	return found
}

// isolate keeps certificates and autosaved configurations out of the home
// directory. One directory serves the whole process, since Caddy reads the
// variable once.
func isolate(t testing.TB) {
	t.Helper()
	dir := tempDir(t)
	if caddy.DefaultStorage.Path == dir {
		return
	}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			t.Fatal(err)
		}
	}
	caddy.DefaultStorage.Path = dir
}

func noPersist(t testing.TB, config []byte) []byte {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal(config, &root); err != nil {
		t.Fatal(err)
	}
	admin, _ := root["admin"].(map[string]any)
	if admin == nil {
		admin = make(map[string]any)
	}
	settings, _ := admin["config"].(map[string]any)
	if settings == nil {
		settings = make(map[string]any)
	}
	settings["persist"] = false
	admin["config"] = settings
	root["admin"] = admin
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The Caddyfile adapter registers itself here.
var _ = httpcaddyfile.App{}
