//go:build linux

package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A subject is what was measured, and on what.
type subject struct {
	commit                  string // and whether the work tree differed from it
	caddy, golang           string
	processor, system, arch string
	cores                   int
}

// describe asks git, the built program and the machine.
func describe(caddy string) (subject, error) {
	info, err := buildinfo.ReadFile(caddy)
	if err != nil {
		return subject{}, err
	}
	s := subject{
		commit: commit(), golang: info.GoVersion,
		processor: processor(), arch: runtime.GOARCH, cores: runtime.NumCPU(),
	}
	for _, module := range info.Deps {
		if module.Path == "github.com/caddyserver/caddy/v2" {
			s.caddy = module.Version
		}
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return subject{}, err
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-") // the rest names a build
	s.system = unix.ByteSliceToString(name.Sysname[:]) + " " + version
	return s, nil
}

func commit() string {
	const changed = " with uncommitted changes"
	out, err := exec.Command("git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty="+changed).Output()
	if err != nil {
		return "unknown" // no git, or none of its work trees
	}
	return strings.TrimSpace(string(out))
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(line, "\t :")
}

// name is for a file.
func (s subject) name() string {
	revision, _, _ := strings.Cut(s.commit, " ")
	return time.Now().Format(time.DateOnly) + "-" + revision
}

func (s subject) String() string {
	return fmt.Sprintf("caddy-sse %s, Caddy %s, %s\n%s, %d cores (%s), %s",
		s.commit, s.caddy, s.golang, s.processor, s.cores, s.arch, s.system)
}
