package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CommandLineTest {

  private static CommandLine of(String... argv) {
    return CommandLine.of(Policies.start(argv));
  }

  private static String[] words(String line) {
    return line.split(" ");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "git push",
        "ls -l",
        "/usr/bin/python3 script.py",
        "python3.12 script.py -c x",
        "bash script.sh",
        "./script.sh",
        "python --version",
        "node server.js",
        "find . -name x",
        "tar xf a.tar",
        "npm install",
        "make all",
        "go test ./...",
      })
  void isCertainOfProgramsWhoseArgvSaysWhatRuns(String line) {
    assertThat(of(words(line))).isEqualTo(new CommandLine(true, List.of()));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "bash",
        "sh -i",
        "bash -s",
        "bash -x script.sh",
        "bash --rcfile x",
        "zsh -c ls",
        "/bin/busybox sh -c ls",
        "busybox ls",
        "python -c x",
        "python3.12 -c x",
        "/usr/local/bin/python3 -m pip install x",
        "python",
        "python -",
        "python /dev/stdin",
        "python /proc/self/fd/0",
        "node -e x",
        "node --eval=x",
        "node22 -p x",
        "perl -e x",
        "perl5.36 -ne x",
        "ruby -e x",
        "php -r x",
        "deno eval x",
        "awk x",
        "gawk x",
        "sed s/a/b/e x",
        "env git push",
        "env X=1 git push",
        "/usr/bin/env bash",
        "sudo git push",
        "doas ls",
        "xargs git push",
        "timeout 5 git push",
        "nohup git push",
        "nice git push",
        "setsid git push",
        "stdbuf -o0 git push",
        "time ls",
        "strace ls",
        "find . -exec git push ;",
        "find . -execdir ls ;",
        "find . -ok ls ;",
        "git -c alias.x=!sh x",
        "git bisect run ls",
        "git rebase --exec ls",
        "git rebase --exec=ls",
        "git submodule foreach ls",
        "tar --to-command=sh xf a",
        "tar -I sh xf a",
        "rsync -e sh a b",
        "ssh host ls",
        "docker run x",
        "npx x",
        "npm exec x",
        "uv run x",
        "make --eval=x",
        "vim -c x",
        "Rscript -e x",
        "/lib64/ld-linux-x86-64.so.2 /usr/bin/git",
        "parallel ls",
        "BASH -c ls",
      })
  void isNotCertainOfTextAndWrappers(String line) {
    assertThat(of(words(line))).isEqualTo(new CommandLine(false, List.of()));
  }

  @Test
  void isNotCertainOfNothing() {
    assertThat(CommandLine.of(Policies.start()).certain()).isFalse();
    assertThat(of("").certain()).isFalse();
  }

  @Test
  void readsTheTextOfAShell() {
    CommandLine line = of("/bin/bash", "-c", "git add . && git push");
    assertThat(line.certain()).isTrue();
    assertThat(line.commands())
        .extracting(CommandLine.Command::argv)
        .containsExactly(List.of("git", "add", "."), List.of("git", "push"));
    assertThat(of("sh", "-euc", "ls").certain()).isTrue();
  }

  @Test
  void isNotCertainOfAShellLineWithAnOpaqueCommand() {
    CommandLine line = of("bash", "-c", "ls && python -c 'x'");
    assertThat(line.certain()).isFalse();
    assertThat(line.commands())
        .extracting(CommandLine.Command::certain)
        .containsExactly(true, false);
  }

  @Test
  void doesNotReadShellsInShells() {
    CommandLine line = of("bash", "-c", "bash -c 'git push'");
    assertThat(line.certain()).isFalse();
    assertThat(line.commands()).hasSize(1);
  }

  @Test
  void readsALoginShellButIsNotCertainOfItsStartUpFiles() {
    CommandLine line = of("bash", "-lc", "git push");
    assertThat(line.certain()).isFalse();
    assertThat(line.commands()).hasSize(1);
  }

  @Test
  void doesNotReadAShellWithWordsBehindItsText() {
    assertThat(of("bash", "-c", "ls", "x")).isEqualTo(new CommandLine(false, List.of()));
    assertThat(of("bash", "-c", "-x")).isEqualTo(new CommandLine(false, List.of()));
    assertThat(of("bash", "-xc", "ls")).isEqualTo(new CommandLine(false, List.of()));
    assertThat(of("bash", "-c")).isEqualTo(new CommandLine(false, List.of()));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"BASH_ENV", "ENV", "SHELLOPTS", "PS4", "CDPATH", "IFS", "BASH_FUNC_git%%"})
  void doesNotReadAShellWhoseEnvironmentChangesItsText(String variable) {
    assertThat(
            CommandLine.of(
                new Action.ProcessStart(
                    List.of("bash", "-c", "git push"),
                    "/workspace",
                    List.of("A", variable),
                    false,
                    false)))
        .isEqualTo(new CommandLine(false, List.of()));
  }
}
