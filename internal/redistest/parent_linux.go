package redistest

import (
	"os/exec"
	"syscall"
)

// endWithParent has the system end the process with the test, even if that crashes.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
