package caddymodule_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// TestUnixSocket promises that the API can be a Unix socket, to which only those
// may publish who may write to the file, without a token.
func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sse") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "sse.sock")
	l := newLab(t)
	caddytest.Load(t, l.caddyfile("", anyChannel)+"http:// {\n\tbind unix/"+socket+"|0220\n\tsse_api /sse* {\n\t\tunauthenticated\n\t}\n}\n")
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	// Windows has neither the type nor such permissions.
	if mode := info.Mode(); runtime.GOOS != "windows" && (mode.Type() != fs.ModeSocket || mode.Perm() != 0o220) {
		t.Errorf("the socket is %s", mode)
	}
	s, _ := l.open("?channel=news")
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Post("http://localhost/sse/publish/news", "text/plain", strings.NewReader("by the socket"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
	expectData(t, s, "by the socket")
	s.Close()

	// The site is not reached by it, nor the API by the site.
	if got := l.do("POST", l.site+"/sse/publish/news", "x"); got.StatusCode == http.StatusOK && got.body != "" {
		t.Errorf("the site publishes: %s", got.body)
	}
}
