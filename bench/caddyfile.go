//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A protocol is what streams are sent over.
type protocol string

const (
	plainHTTP1 protocol = "HTTP/1.1"
	secureH1   protocol = "HTTP/1.1 over TLS"
	secureH2   protocol = "HTTP/2 over TLS"
)

// caddyfile has the defaults wherever they are not in the way: whatever the
// protocol and the handlers are, it has the same shape.
const caddyfile = `{
	admin %s
	persist_config off
	auto_https off
	%s
}
%s {
	bind 127.0.0.1
	%s
}
http://%s {
	bind 127.0.0.1
	%s
}
`

// config returns the server's Caddyfile.
func (s *server) config() []byte {
	global, streams, publish := "", "naive /events*", "naive_publish /sse*"
	if s.engine == "caddy" {
		global = fmt.Sprintf("sse {\n\t\t%s\n\t}", s.hub)
		streams = "sse /events* {\n\t\tallow *\n\t}"
		publish = "sse_api /sse* {\n\t\tunauthenticated\n\t}"
	}
	site := "http://" + s.streamsAt
	if s.protocol != plainHTTP1 {
		// The client chooses between HTTP/1.1 and 2.
		site = "https://" + s.streamsAt
		streams = fmt.Sprintf("tls %s %s\n\t%s", s.kit.certificate.file, s.kit.certificate.keyFile, streams)
	}
	return fmt.Appendf(nil, caddyfile, s.adminAt, global, site, streams, s.publishAt, publish)
}

func (s *server) runCaddy(program string) (*exec.Cmd, error) {
	file := filepath.Join(s.dir, "Caddyfile")
	if err := os.WriteFile(file, s.config(), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir)
	return cmd, nil
}
