package caddymodule_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

func init() { caddy.RegisterModule(new(failingLoader)) }

// A failingLoader has a configuration fail when all of it runs already, and Caddy
// has said that it has started.
type failingLoader struct{}

func (*failingLoader) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.config_loaders.failing", New: func() caddy.Module { return new(failingLoader) }}
}

// LoadConfig implements caddy.ConfigLoader. It stops the configuration's servers,
// which Caddy forgets.
func (*failingLoader) LoadConfig(ctx caddy.Context) ([]byte, error) {
	servers, err := ctx.App("http")
	if err == nil {
		err = servers.(caddy.App).Stop()
	}
	return nil, errors.Join(errors.New("it fails as it is to"), err)
}

// loadFailing loads a Caddyfile that fails after it has started.
func loadFailing(t *testing.T, caddyfile string) {
	t.Helper()
	adapted, err := caddytest.Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	config["admin"].(map[string]any)["config"] = map[string]any{"load": map[string]any{"module": "failing"}}
	failing, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddytest.LoadJSON(t, failing); err == nil {
		t.Fatal("the configuration was accepted, so the test shows nothing")
	}
}

// TestReloadFailsLate holds a bug: a configuration failed after Caddy had said that it
// had started, because what loads the next one did. Caddy went on with the one before,
// but hubs and routes kept the settings and rules of the one that was gone: streams
// that its servers let in were ended at once, again and again.
func TestReloadFailsLate(t *testing.T) {
	l := loadLab(t, "sse {\n history 5 1h\n }", endpoint("allow news other", "keepalive off"))
	s, _ := openRaw(t, l.client, l.site+newsEvents, nil)
	loadFailing(t, l.caddyfile("sse {\n history 1 1h\n }", endpoint("allow news", "keepalive 1ms")))
	other, _ := l.open("?channel=other")
	l.publish("news", "one") // upon which the stream takes on what is in force
	for field(s.next(), "data") != "one" {
		// Keepalives that were sent before.
	}
	for _, data := range []string{"two", "three"} {
		l.publish("other", data)
		expectData(t, other, data)
		l.publish("news", data)
		if frame := s.next(); field(frame, "data") != data {
			t.Errorf("got %q without keepalives", frame)
		}
	}
	var kept struct{ Events int }
	decodeLoosely(t, l.do("GET", l.admin+"/sse/channels/news", "").body, &kept)
	if kept.Events != 3 {
		t.Errorf("the hub keeps %d of 3 events", kept.Events)
	}
}
