package kubernetes_test

import (
	"os/exec"
	"testing"
)

// The provider can't be had everywhere, and without it nothing but the syntax can be checked.
func TestTerraformReadsTheVaultSide(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("NOT TESTED, there is no terraform")
	}
	cmd := exec.CommandContext(t.Context(), terraform, "fmt", "-check", "-diff", "vault")
	cmd.Env = []string{"HOME=" + t.TempDir(), "CHECKPOINT_DISABLE=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
}
