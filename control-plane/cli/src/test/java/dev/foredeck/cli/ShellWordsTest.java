package dev.foredeck.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

class ShellWordsTest {
  @Test
  void splitsAsAShellDoes() {
    assertThat(ShellWords.split("  /a/foredeck   up ")).containsExactly("/a/foredeck", "up");
    assertThat(ShellWords.split("'/a b/foredeck' \"u$p\" c\\ d '' e'f'g"))
        .containsExactly("/a b/foredeck", "u$p", "c d", "", "efg");
    assertThat(ShellWords.split("\"a\\\"b\" 'a\\b'")).containsExactly("a\"b", "a\\b");
    assertThat(ShellWords.split(" ")).isEmpty();
  }

  @Test
  void refusesAnOpenQuote() {
    assertThatThrownBy(() -> ShellWords.split("a 'b")).hasMessage("a ' is not closed");
    assertThatThrownBy(() -> ShellWords.split("a \"b")).hasMessage("a \" is not closed");
    assertThatThrownBy(() -> ShellWords.split("a\\")).hasMessage("it ends in a backslash");
  }

  @Test
  void quotesWhatAShellWouldRead() {
    assertThat(ShellWords.quote("/var/tmp/x-1")).isEqualTo("/var/tmp/x-1");
    assertThat(ShellWords.quote("a b'c")).isEqualTo("'a b'\\''c'");
    assertThat(ShellWords.quote("")).isEqualTo("''");
    assertThat(ShellWords.split(ShellWords.quote("$(x) 'y'"))).containsExactly("$(x) 'y'");
  }
}
