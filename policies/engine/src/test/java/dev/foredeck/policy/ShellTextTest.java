package dev.foredeck.policy;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ShellTextTest {

  private static List<List<String>> argvs(String text) {
    return ShellText.recognise(text, "/workspace").orElseThrow().stream()
        .map(ShellText.Command::argv)
        .toList();
  }

  @Test
  void readsOneCommandOfPlainWords() {
    assertThat(argvs("git push --force")).containsExactly(List.of("git", "push", "--force"));
    assertThat(argvs("  ls\t-l  ")).containsExactly(List.of("ls", "-l"));
    assertThat(argvs("./run.sh a=b user@host:1 50% 1,2 +x"))
        .containsExactly(List.of("./run.sh", "a=b", "user@host:1", "50%", "1,2", "+x"));
  }

  @Test
  void readsEveryCommandOfALine() {
    assertThat(argvs("git add . && git push||echo no;true")).hasSize(4);
    assertThat(argvs("ls | wc -l")).containsExactly(List.of("ls"), List.of("wc", "-l"));
    assertThat(argvs("ls\nwc\n\n")).containsExactly(List.of("ls"), List.of("wc"));
    assertThat(argvs("\n ls ;")).containsExactly(List.of("ls"));
  }

  @Test
  void readsPlainQuotes() {
    assertThat(argvs("git commit -m 'fix: a; b && $c'"))
        .containsExactly(List.of("git", "commit", "-m", "fix: a; b && $c"));
    assertThat(argvs("echo \"a  b\" --x='y z'w ''"))
        .containsExactly(List.of("echo", "a  b", "--x=y zw", ""));
    assertThat(argvs("'git' pu\"sh\"")).containsExactly(List.of("git", "push"));
    assertThat(argvs("python3 -c 'a\nb'")).containsExactly(List.of("python3", "-c", "a\nb"));
  }

  @Test
  void followsChangesOfFolderThatMustHaveWorked() {
    assertThat(ShellText.recognise("cd app && cd ./sub/ && git push", "/workspace").orElseThrow())
        .containsExactly(new ShellText.Command(List.of("git", "push"), "/workspace/app/sub"));
    assertThat(ShellText.recognise("cd /tmp && ls", "relative").orElseThrow())
        .containsExactly(new ShellText.Command(List.of("ls"), "/tmp"));
    assertThat(ShellText.recognise("cd /tmp", "/workspace").orElseThrow()).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        // Expansions of every kind.
        "echo $HOME",
        "echo \"$HOME\"",
        "git $X",
        "echo `id`",
        "echo \"`id`\"",
        "echo $(id)",
        "echo ${X}",
        "echo $'a'",
        "echo $\"a\"",
        "ls *.txt",
        "ls ?",
        "ls [ab]",
        "ls ~",
        "ls a:~/b",
        "echo {a,b}",
        "echo !x",
        "echo \"!x\"",
        "git pu\\sh",
        "echo \"a\\\"b\"",
        "git pu\\\nsh",
        // Redirections, background, subshells, groups, comments, here documents.
        "ls > x",
        "ls 2>&1",
        "ls >> x",
        "cat < x",
        "cat <<EOF\nx\nEOF",
        "ls &",
        "ls & git push",
        "ls |& wc",
        "(ls)",
        "{ ls; }",
        "ls # x",
        "a() { ls; }",
        "diff <(ls) x",
        "((1))",
        "[[ a ]]",
        "[ -f x ]",
        // Assignments.
        "X=1",
        "X=1 ls",
        "'X'=1 ls",
        "X+=1",
        "PATH=/tmp git push",
        // Reserved words and builtins that change what words mean.
        "if true; then ls; fi",
        "for x in a; do ls; done",
        "while true; do ls; done",
        "! ls",
        "time ls",
        "eval ls",
        "'eval' ls",
        "exec ls",
        "command git push",
        "builtin cd x",
        "source x",
        ". x",
        "alias git=x",
        "export A",
        "set -x",
        "unset A",
        "trap ls EXIT",
        "hash -p /tmp/x git",
        "enable -f x y",
        "printf -v PATH x",
        "printf -vPATH x",
        "read x",
        "function f",
        "coproc ls",
        "declare x",
        "shopt -s x",
        // Folders that may not be where the next command runs.
        "cd x; ls",
        "cd x || ls",
        "cd x\nls",
        "cd x | ls",
        "cd && ls",
        "cd - && ls",
        "cd .. && ls",
        "cd a/../b && ls",
        "cd -P x && ls",
        "cd x y && ls",
        "cd '' && ls",
        "pushd x",
        // Broken lines.
        "",
        " ",
        "\n",
        ";",
        "ls ;; ls",
        "ls &&",
        "ls && && ls",
        "&& ls",
        "ls ||",
        "ls |",
        "ls && \n ls",
        "'ls",
        "\"ls",
        "ls 'a",
        "''",
        "'' ls",
        // Bytes that shells and terminals read in their own way.
        "ls\r",
        "ls \u0000",
        "echo '\u0000'",
        "echo '\u001b[2J'",
        "ls\u00a0-l",
        "l\u0455 -l",
        "ls ^a",
        "ls a^b",
      })
  void givesUpOnAnythingElse(String text) {
    assertThat(ShellText.recognise(text, "/workspace")).isEmpty();
  }

  @Test
  void givesUpOnLongText() {
    assertThat(ShellText.recognise("ls " + "a".repeat(ShellText.MAX_LENGTH), "/")).isEmpty();
    assertThat(ShellText.recognise("ls;".repeat(ShellText.MAX_COMMANDS), "/")).isPresent();
    assertThat(ShellText.recognise("ls;".repeat(ShellText.MAX_COMMANDS + 1), "/")).isEmpty();
    assertThat(ShellText.recognise("ls" + " a".repeat(ShellText.MAX_WORDS), "/")).isEmpty();
  }

  @Test
  void givesUpOnARelativeFolderUnderAnUnknownOne() {
    assertThat(ShellText.recognise("cd x && ls", "")).isEmpty();
  }
}
