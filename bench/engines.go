//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// An engine is a server that can be measured.
type engine struct {
	// command returns how it is started.
	command func(*server) (*exec.Cmd, error)
	// post returns the request that publishes on a channel.
	post func(channel string) post
	// collect has it collect garbage, and returns how many bytes its heap has
	// free and would give back.
	collect func(*server, context.Context) (free int, err error)
	// programs are what it needs of the system, and install is how to get
	// them. It has none if it is ours.
	programs []string
	install  string
}

// A post is a request that publishes one event: its path, more lines of its
// head, and what stands before and behind the data in its body.
type post struct{ path, header, before, after string }

var engines = map[string]engine{
	"loop":    {command: (*server).loopCommand, post: postHub, collect: (*server).collectGo},
	"caddy":   {command: (*server).caddyCommand, post: postHub, collect: (*server).collectGo},
	"naive":   {command: (*server).naiveCommand, post: postHub, collect: (*server).collectGo},
	"nchan":   nchan,
	"pushpin": pushpin,
	"express": express,
	"redis":   redisEngine,
}

func postHub(channel string) post { return post{path: "/sse/publish/" + channel} }

// missing returns what an engine needs and does not find, or nothing.
func (e engine) missing() string {
	for _, program := range e.programs {
		if _, err := os.Stat(program); err == nil {
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Sprintf("%s is not there; install it with `%s`", program, e.install)
		}
	}
	return ""
}

func (s *server) loopCommand() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.adminAt = s.publishAt
	return exec.Command(self, "loop", s.streamsAt, s.publishAt), nil
}

func (s *server) caddyCommand() (*exec.Cmd, error) { return s.runCaddy(s.kit.caddy) }

func (s *server) naiveCommand() (*exec.Cmd, error) { return s.runCaddy(s.kit.naive) }
