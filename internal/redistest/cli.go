package redistest

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// refusal matches errors of Redis, which redis-cli prints as other answers.
var refusal = regexp.MustCompile(`^(ERR|WRONGTYPE|WRONGPASS|NOAUTH|NOPERM|OOM|READONLY|MISCONF|LOADING|CLUSTERDOWN) `)

// Do runs a command and returns what redis-cli prints of the answer. An answer that is
// an error fails the test.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	answer := s.Try(args...)
	if refusal.MatchString(answer) {
		s.t.Fatalf("%q: %s", args, answer)
	}
	return answer
}

// Try is Do for an answer that may be an error.
func (s *Server) Try(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", append([]string{"-s", s.Socket}, args...)...)
	if s.Password != "" {
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+s.Password)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %q: %v: %s", args, err, out)
	}
	return strings.TrimRight(string(out), "\r\n")
}

// Info returns a field of INFO.
func (s *Server) Info(section, field string) string {
	s.t.Helper()
	for line := range strings.Lines(s.Do("INFO", section)) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), field+":"); found {
			return value
		}
	}
	return ""
}

// Calls returns how often commands ran since the server began or CONFIG RESETSTAT, by
// their names in lower case, without those of redis-cli.
func (s *Server) Calls() map[string]int {
	s.t.Helper()
	calls := make(map[string]int)
	for line := range strings.Lines(s.Do("INFO", "commandstats")) {
		name, stats, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if !found {
			continue
		}
		digits, _, _ := strings.Cut(stats, ",")
		n, err := strconv.Atoi(digits)
		if err != nil {
			s.t.Fatalf("commandstats: %s", line)
		}
		calls[name] = n
	}
	return calls
}

// Await waits until a field of INFO has a value.
func (s *Server) Await(section, field, value string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for s.Info(section, field) != value {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s of INFO %s is %q, not %q", field, section, s.Info(section, field), value)
		}
		time.Sleep(5 * time.Millisecond) // nothing tells when it changes
	}
}
