//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// redisEngine is no server of events, but what keeps a record for some of ours.
var redisEngine = engine{
	command:  (*server).redisCommand,
	programs: []string{"redis-server"},
	install:  "apt-get install redis-server",
}

// redisCommand takes how Redis logs from what is the hub's options elsewhere. It
// is reached by TCP, as it would be from another machine.
func (s *server) redisCommand() (*exec.Cmd, error) {
	s.publishAt, s.adminAt = s.streamsAt, s.streamsAt
	_, port, err := net.SplitHostPort(s.adminAt)
	if err != nil {
		return nil, err
	}
	arguments := []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"}
	if s.hub != "no" {
		arguments = append(arguments, "--appendonly", "yes", "--appendfsync", s.hub)
	}
	return exec.Command("redis-server", arguments...), nil
}

// A cluster is a Redis and nodes whose hub has its record there.
type cluster struct {
	redis  *server
	nodes  []*server
	others followers
}

// startCluster starts fresh processes. The caller stops them.
func (set *redis) startCluster(ctx context.Context, k *kit, nodes int) (c *cluster, err error) {
	c = new(cluster)
	if c.redis, err = startServer(ctx, plan{engine: "redis", kit: k, hub: set.appending}); err != nil {
		return nil, err
	}
	for range nodes {
		s, err := startServer(ctx, plan{engine: "caddy", kit: k, hub: c.hub()})
		if err != nil {
			c.stop()
			return nil, err
		}
		c.nodes = append(c.nodes, s)
	}
	return c, nil
}

// hub returns the options of a hub whose record is in a Redis, lines of a Caddyfile. It
// keeps more than by default: at the highest rate that would be gone in two seconds, and
// a node that was held up for as long, by whoever else is on the machine, could not go on.
func (c *cluster) hub() string {
	return "broker redis redis://" + c.redis.adminAt + ` {
			max_events 400000
		}`
}

func (c *cluster) stop() {
	for _, s := range append(c.nodes, c.redis) {
		s.stop()
	}
}

// settle waits until all are idle.
func (c *cluster) settle(ctx context.Context) error {
	for _, s := range append(c.nodes, c.redis) {
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// A usage is what the processes of a cluster have used, or did between two looks.
type usage struct {
	redis time.Duration   // of all cores
	nodes []time.Duration // by node
	// What Redis tells of itself, in bytes: received, sent, and needed.
	input, output, memory int
	// What those got who follow and are no nodes.
	entries, answers int
}

func (c *cluster) usage(ctx context.Context) (usage, error) {
	u := usage{redis: c.redis.cpu(), entries: int(c.others.entries.Load()), answers: int(c.others.answers.Load())}
	for _, s := range c.nodes {
		u.nodes = append(u.nodes, s.cpu())
	}
	info, err := c.redis.redisInfo(ctx)
	u.input, u.output, u.memory = info["total_net_input_bytes"], info["total_net_output_bytes"], info["used_memory"]
	if err == nil && (u.output == 0 || u.memory == 0) {
		err = errors.New("redis does not tell what it sends and needs")
	}
	return u, err
}

// since returns what was used since an earlier look.
func (u usage) since(before usage) usage {
	u.redis -= before.redis
	for i := range u.nodes {
		u.nodes[i] -= before.nodes[i]
	}
	u.entries, u.answers = u.entries-before.entries, u.answers-before.answers
	u.input, u.output, u.memory = u.input-before.input, u.output-before.output, u.memory-before.memory
	return u
}

// redisInfo returns the numbers of INFO by their names.
func (s *server) redisInfo(ctx context.Context) (map[string]int, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("INFO\r\n")); err != nil {
		return nil, err
	}
	answer := bufio.NewReader(conn)
	size, err := readSize(answer, '$')
	if err != nil {
		return nil, err
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(answer, text); err != nil {
		return nil, err
	}
	numbers := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if n, err := strconv.Atoi(value); err == nil {
			numbers[name] = n
		}
	}
	return numbers, nil
}
