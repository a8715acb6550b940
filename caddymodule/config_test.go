package caddymodule_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// TestConfigMistakes promises that each mistake in a configuration in JSON is
// an error that says what to mend.
func TestConfigMistakes(t *testing.T) {
	const subscribe = `{"handler":"sse","allow":["*"]`
	const api = `{"handler":"sse_api"`
	long := strings.Repeat("a", 256)
	for _, tc := range []struct {
		name, hubs, handler string
		parts               []string // of the error; nil if there is none
	}{
		{"good", `{"stocks":{"history_count":1,"history_age":"1m","memory":1000000,"drain":"1s","broker":{"name":"memory"}}}`, subscribe + `,"hub":"stocks"}`, nil},
		{"hub null", `{"stocks":null}`, subscribe + `,"hub":"stocks"}`, nil},
		{"negative durations that mean off", `{"stocks":{"drain":-1}}`, subscribe + `,"keepalive":-1,"max_age":-1}`, nil},
		{"default needs no hub", `{}`, subscribe + `}`, nil},

		{"unknown field of the app", `{"default":{}},"hub":{}`, "", []string{`"hub"`}},
		{"unknown field of a hub", `{"default":{"histroy_count":1}}`, "", []string{"histroy_count"}},
		{"hub without a name", `{"":{}}`, "", []string{"hub", "name"}},
		{"history_count negative", `{"stocks":{"history_count":-1}}`, "", []string{"hub stocks", "history_count", "-1"}},
		{"history_count a string", `{"stocks":{"history_count":"1"}}`, "", []string{"history_count"}},
		{"history_age negative", `{"stocks":{"history_age":"-1m"}}`, "", []string{"hub stocks", "history_age", "-1m"}},
		{"history_age a word", `{"stocks":{"history_age":"long"}}`, "", []string{"long"}},
		{"memory negative", `{"stocks":{"memory":-1}}`, "", []string{"hub stocks", "memory", "1000000"}},
		{"memory too small", `{"stocks":{"memory":1000}}`, "", []string{"hub stocks", "memory", "1000000"}},
		{"broker unknown", `{"stocks":{"broker":{"name":"nosuch"}}}`, "", []string{"hub stocks", "nosuch"}},
		{"broker without a name", `{"stocks":{"broker":{}}}`, "", []string{"hub stocks", "broker"}},
		{"broker with an unknown field", `{"stocks":{"broker":{"name":"memory","file":"x"}}}`, "", []string{"hub stocks", "file"}},

		{"redis without a URL", `{"stocks":{"broker":{"name":"redis"}}}`, "", []string{"hub stocks", "URL"}},
		{"redis with the URL of an unset variable", `{"stocks":{"broker":{"name":"redis","url":"{env.SSE_TEST_UNSET}"}}}`, "", []string{"url", "SSE_TEST_UNSET"}},
		{"redis with another scheme", `{"stocks":{"broker":{"name":"redis","url":"http://h"}}}`, "", []string{"hub stocks", "redis://"}},
		{"redis, prefix with braces", `{"stocks":{"broker":{"name":"redis","url":"redis://h","prefix":"}"}}}`, "", []string{"hub stocks", "braces"}},
		{"redis, max_events negative", `{"stocks":{"broker":{"name":"redis","url":"redis://h","max_events":-1}}}`, "", []string{"max_events", "-1"}},
		{"redis, max_age negative", `{"stocks":{"broker":{"name":"redis","url":"redis://h","max_age":-1}}}`, "", []string{"max_age"}},
		{"redis, max_size small", `{"stocks":{"broker":{"name":"redis","url":"redis://h","max_size":1}}}`, "", []string{"max_size", "1000000"}},
		{"redis, timeout negative", `{"stocks":{"broker":{"name":"redis","url":"redis://h","timeout":-1}}}`, "", []string{"timeout"}},
		{"redis, after_restart", `{"stocks":{"broker":{"name":"redis","url":"redis://h","after_restart":"x"}}}`, "", []string{"after_restart", "begin_anew", "go_on", `"x"`}},
		{"redis, tls without a file", `{"stocks":{"broker":{"name":"redis","url":"rediss://h","tls":{}}}}`, "", []string{"tls", "ca"}},
		{"redis, tls without a key", `{"stocks":{"broker":{"name":"redis","url":"rediss://h","tls":{"certificate":"x"}}}}`, "", []string{"tls", "key"}},
		{"redis, ca that is not there", `{"stocks":{"broker":{"name":"redis","url":"rediss://h","tls":{"ca":"nosuch.pem"}}}}`, "", []string{"tls", "ca", "nosuch.pem"}},
		{"redis, ca that is none", `{"stocks":{"broker":{"name":"redis","url":"rediss://h","tls":{"ca":"config_test.go"}}}}`, "", []string{"tls", "ca", "PEM"}},
		{"redis, certificate that is none", `{"stocks":{"broker":{"name":"redis","url":"rediss://h","tls":{"certificate":"config_test.go","key":"config_test.go"}}}}`, "", []string{"tls", "certificate"}},
		{"redis, tls without rediss", `{"stocks":{"broker":{"name":"redis","url":"{env.HOME}","tls":{"ca":"x"}}}}`, "", []string{"tls"}},
		{"redis, sentinel user without Sentinels", `{"stocks":{"broker":{"name":"redis","url":"redis://h","sentinel_username":"x"}}}`, "", []string{"master_set"}},

		{"unknown field", `{}`, subscribe + `,"alow":["x"]}`, []string{"alow"}},
		{"unknown field of the limits", `{}`, subscribe + `,"limits":{"per_day":1}}`, []string{"per_day"}},
		{"wrong hub", `{"stocks":{},"chat":{}}`, subscribe + `,"hub":"nosuch"}`, []string{`"nosuch"`, "sse nosuch", "chat", "default", "stocks"}},
		{"wrong hub, none configured", `{}`, subscribe + `,"hub":"nosuch"}`, []string{`"nosuch"`, "sse nosuch", "default"}},
		{"nothing to subscribe to", `{}`, `{"handler":"sse"}`, []string{"channel", "allow"}},
		{"empty lists", `{}`, `{"handler":"sse","channels":[],"allow":[]}`, []string{"channel", "allow"}},
		{"bad channel", `{}`, `{"handler":"sse","channels":["a b"]}`, []string{"channel", `"a b"`}},
		{"bad allow", `{}`, `{"handler":"sse","allow":["a*b"]}`, []string{"allow", `"a*b"`}},
		{"empty channel", `{}`, `{"handler":"sse","channels":[""]}`, []string{"channel", "empty"}},
		{"long channel", `{}`, `{"handler":"sse","channels":["` + long + `"]}`, []string{"channel", "255"}},
		{"placeholder without an end", `{}`, `{"handler":"sse","channels":["user-{http.auth.user.id"]}`, []string{"channel", "end"}},
		{"placeholder without a name", `{}`, `{"handler":"sse","channels":["user-{}"]}`, []string{"channel", "placeholder"}},
		{"end without a placeholder", `{}`, `{"handler":"sse","channels":["user-id}"]}`, []string{"channel", "}"}},
		{"space around a placeholder", `{}`, `{"handler":"sse","channels":["user {http.auth.user.id}"]}`, []string{"channel", "' '"}},
		{"star before a placeholder", `{}`, `{"handler":"sse","allow":["*{http.auth.user.id}"]}`, []string{"allow", "*"}},
		{"overload", `{}`, subscribe + `,"overload":"404"}`, []string{"overload", `"404"`, "retry", "503"}},
		{"retry negative", `{}`, subscribe + `,"retry":"-1s"}`, []string{"retry", "-1s"}},
		{"retry below a millisecond", `{}`, subscribe + `,"retry":"1us"}`, []string{"retry"}},
		{"connections negative", `{}`, subscribe + `,"limits":{"connections":-1}}`, []string{"connections", "-1"}},
		{"lag negative", `{}`, subscribe + `,"limits":{"lag":-1}}`, []string{"lag", "-1"}},
		{"slow", `{}`, subscribe + `,"slow":"drop"}`, []string{"slow", `"drop"`, "reset", "disconnect"}},
		{"channels negative", `{}`, subscribe + `,"limits":{"channels":-1}}`, []string{"channels", "-1"}},

		{"api, unknown field", `{}`, api + `,"unauthenticated":true,"token":"x"}`, []string{"token"}},
		{"api, wrong hub", `{}`, api + `,"unauthenticated":true,"hub":"nosuch"}`, []string{`"nosuch"`, "default"}},
		{"api, no way to authenticate", `{}`, api + `}`, []string{"token", "unauthenticated"}},
		{"api, tokens empty", `{}`, api + `,"tokens":[]}`, []string{"token", "unauthenticated"}},
		{"api, both", `{}`, api + `,"tokens":["x"],"unauthenticated":true}`, []string{"token", "unauthenticated"}},
		{"api, token empty", `{}`, api + `,"tokens":[""]}`, []string{"token", "empty"}},
		{"api, token of an unset variable", `{}`, api + `,"tokens":["{env.SSE_TEST_UNSET}"]}`, []string{"token", "{env.SSE_TEST_UNSET}"}},
		{"api, token partly of an unset variable", `{}`, api + `,"tokens":["sse-{env.SSE_TEST_UNSET}"]}`, []string{"token", "SSE_TEST_UNSET"}},
		{"api, token of an unknown placeholder", `{}`, api + `,"tokens":["x{nosuch.placeholder}"]}`, []string{"token", "nosuch.placeholder"}},
		{"api, second token empty", `{}`, api + `,"tokens":["x","{env.SSE_TEST_UNSET}"]}`, []string{"token", "SSE_TEST_UNSET"}},
		{"api, token of white space", `{}`, api + `,"tokens":[" "]}`, []string{"token"}},
		{"api, allow", `{}`, api + `,"unauthenticated":true,"allow":["a b"]}`, []string{"allow", `"a b"`}},
		{"api, max_body negative", `{}`, api + `,"unauthenticated":true,"max_body":-1}`, []string{"max_body", "-1"}},
		{"api, base with a slash at its end", `{}`, api + `,"unauthenticated":true,"base":"/sse/"}`, []string{"base", "/sse/"}},
		{"api, base without a slash", `{}`, api + `,"unauthenticated":true,"base":"sse"}`, []string{"base", "sse"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			app := ""
			if tc.handler != "" {
				app = fmt.Sprintf(`,"http":{"servers":{"s":{"listen":["127.0.0.1:%d"],"routes":[{"handle":[%s]}]}}}`, caddytest.FreePort(t), tc.handler)
			}
			config := fmt.Sprintf(`{"admin":{"disabled":true},"logging":{"logs":{"default":{"level":"ERROR"}}},"apps":{"sse":{"hubs":%s}%s}}`, tc.hubs, app)
			err := caddytest.LoadJSON(t, []byte(config))
			if tc.parts != nil {
				expectErrorParts(t, err, tc.parts)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnknownHub promises that a handler of a hub that is not configured is an
// error of the whole configuration, from a Caddyfile too.
func TestUnknownHub(t *testing.T) {
	for _, directives := range []string{
		"sse {\n\t\thub nosuch\n\t\tallow *\n\t}",
		"sse_api {\n\t\thub nosuch\n\t\tunauthenticated\n\t}",
	} {
		expectErrorParts(t, newLab(t).tryLoad("sse stocks", directives), []string{`"nosuch"`, "sse nosuch", "stocks"})
	}
}

// TestFailedReload promises that a configuration which is refused changes
// nothing: streams go on, events stay kept, settings are as they were. It may
// be refused when it is read, when its modules are set up, or when they start.
func TestFailedReload(t *testing.T) {
	const globals = "sse {\n\t\thistory 10 1h\n\t}"
	const directives = "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tconnections 2\n\t\t}\n\t}"
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() })
	const fewer = "sse {\n\t\thistory 1 1h\n\t\tmemory 1MiB\n\t}"

	for _, tc := range []struct{ name, globals, directives string }{
		{"when it is read", fewer, directives + "\n\tsse {\n\t\tnosuch\n\t}"},
		{"when the app is set up", fewer + "\n\tsse bad {\n\t\tmemory 1KiB\n\t}", directives},
		{"when a handler is set up", fewer, directives + "\n\tsse /other {\n\t\thub nosuch\n\t\tallow *\n\t}"},
		{"when an endpoint is set up", fewer, directives + "\n\tsse_api /sse* {\n\t\ttoken {env.SSE_TEST_UNSET}\n\t}"},
		{"when another module is set up", fewer, directives + "\n\treverse_proxy {\n\t\tto unix//nosuch\n\t\ttransport http {\n\t\t\ttls_trust_pool file /nosuch\n\t\t}\n\t}"},
		{"when it starts", fewer, directives + "\n}\nhttp://127.0.0.1:" + port(busy) + " {\n\tbind 127.0.0.1\n\trespond hello"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := loadLab(t, globals, directives)
			s, _ := l.open("?channel=a")
			first := l.publish("a", "1")
			for i := range 4 {
				l.publish("a", fmt.Sprint(i+2))
			}
			expectData(t, s, "1", "2", "3", "4", "5")
			// Apps start in random order: try both.
			for range 8 {
				if err := l.tryLoad(tc.globals, tc.directives); err == nil {
					t.Fatal("it is accepted")
				}
				var c keptReply
				l.do("GET", l.admin+"/sse/channels/a", "").into(t, &c)
				if c.Events != 5 || c.Subscribers != 1 {
					t.Fatalf("got %+v, want 5 events and the subscriber", c.channelReply)
				}
			}
			l.publish("a", "6")
			expectData(t, s, "6")
			again, open := l.open("?channel=a&since=" + first.ID.String())
			if open.Resume != "complete" {
				t.Errorf("got %+v", open)
			}
			expectData(t, again, "2", "3", "4", "5", "6")
			if _, open := l.openAt("/events?channel=a"); open.Connection != "" {
				t.Error("the limit of connections is gone")
			}
			again.Close()
			s.Close()
			eventually(t, "the streams are gone", func() bool { return l.numbers("").Streams == 0 })
			l.load(globals, directives)
			if n := l.numbers(""); n.Published != 6 {
				t.Errorf("after a good reload: got %+v", n)
			}
		})
	}
}

func port(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }

// TestReloadSettings promises that a reload gives a live hub its new settings,
// and takes back those that are no longer configured.
func TestReloadSettings(t *testing.T) {
	l := loadLab(t, "sse {\n\t\thistory 2 1h\n\t}", anyChannel)
	for i := range 5 {
		l.publish("a", fmt.Sprint(i))
	}
	kept := func() int {
		var c keptReply
		l.do("GET", l.admin+"/sse/channels/a", "").into(t, &c)
		return c.Events
	}
	if n := kept(); n != 2 {
		t.Errorf("got %d kept, want 2", n)
	}
	l.load("sse {\n\t\thistory 1 1h\n\t}", anyChannel)
	if n := kept(); n != 1 {
		t.Errorf("after a reload: got %d kept, want 1", n)
	}
	l.load("", anyChannel)
	for i := range 5 {
		l.publish("a", fmt.Sprint(i))
	}
	if n := kept(); n < 5 {
		t.Errorf("with the default: got %d kept, want 5 or more", n)
	}
}
