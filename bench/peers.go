//go:build linux

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The peers are servers of others that do the same. Their settings are those
// that one would run them with.
var (
	//go:embed peers/nginx.conf
	nginxConfig string
	//go:embed peers/pushpin.conf
	pushpinConfig string
)

const (
	nginxModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"
	expressDir  = "peers/express"
)

var nchan = engine{
	command:  (*server).nchanCommand,
	post:     func(channel string) post { return post{path: "/publish/" + channel} },
	collect:  collectNothing,
	programs: []string{"/usr/sbin/nginx", nginxModule},
	install:  "apt-get install nginx libnginx-mod-nchan",
}

var pushpin = engine{
	command: (*server).pushpinCommand,
	post: func(channel string) post {
		return post{
			path: "/publish/", header: "Content-Type: application/json\r\n",
			before: fmt.Sprintf(`{"items":[{"channel":%q,"formats":{"http-stream":{"content":"data: `, channel),
			after:  `\n\n"}}}]}`,
		}
	},
	collect:  collectNothing,
	programs: []string{"pushpin"},
	install:  "apt-get install pushpin",
}

var express = engine{
	command:  (*server).expressCommand,
	post:     func(channel string) post { return post{path: "/publish/" + channel} },
	collect:  (*server).collectExpress,
	programs: []string{"node", expressDir + "/node_modules/express"},
	install:  "npm ci in bench/" + expressDir,
}

func collectNothing(*server, context.Context) (free int, err error) { return 0, nil }

// fill writes a file of the server's with its addresses in it.
func (s *server) fill(name, text string) (string, error) {
	_, port, err := net.SplitHostPort(s.publishAt)
	if err != nil {
		return "", err
	}
	text = strings.NewReplacer("{dir}", s.dir, "{streams}", s.streamsAt, "{publish}", s.publishAt, "{publish port}", port).Replace(text)
	file := filepath.Join(s.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

func (s *server) nchanCommand() (*exec.Cmd, error) {
	s.adminAt = s.publishAt
	file, err := s.fill("nginx.conf", nginxConfig)
	return exec.Command("/usr/sbin/nginx", "-p", s.dir, "-c", file), err
}

func (s *server) expressCommand() (*exec.Cmd, error) {
	s.adminAt = s.publishAt
	cmd := exec.Command("node", "--expose-gc", filepath.Join(expressDir, "server.js"), s.streamsAt, s.publishAt)
	cmd.Env = append(os.Environ(), "NODE_ENV=production")
	return cmd, nil
}

func (s *server) collectExpress(ctx context.Context) (free int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.publishAt+"/gc", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return 0, answer.Body.Close()
}

// pushpinCommand also serves the backend that Pushpin asks about each stream.
func (s *server) pushpinCommand() (*exec.Cmd, error) {
	if _, err := s.fill("routes", "* "+s.adminAt+"\n"); err != nil {
		return nil, err
	}
	file, err := s.fill("pushpin.conf", pushpinConfig)
	if err != nil {
		return nil, err
	}
	backend, err := net.Listen("tcp", s.adminAt)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, backend)
	go func() { _ = http.Serve(backend, http.HandlerFunc(hold)) }()
	return exec.Command("pushpin", "--config="+file), nil
}

// hold has Pushpin keep a stream open for events of a channel.
func hold(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Grip-Hold", "stream")
	w.Header().Set("Grip-Channel", r.FormValue("channel"))
}
