package dev.foredeck.driver.kubernetes;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class TemplatesTest {
  private static final String HEAD = "agentImage: a\nfirewallImage: f\n";

  @Test
  void readsWhatAnOperatorMaySay() {
    Templates templates =
        Templates.parse(
            HEAD
                + """
                strong: {runtimeClass: gvisor}
                templates:
                  zebra:
                    image: localhost/zebra:1
                    runtimeClass: runc
                    userNamespace: false
                    workspace: {storageClass: fast}
                    nodeSelector: {pool: sandboxes}
                    tolerations: [{key: sandboxes, operator: Exists, tolerationSeconds: 5}]
                    imagePullSecrets: [registry]
                    priorityClass: low
                    labels: {team: growth}
                  ape: {image: localhost/ape:1, workspace: memory}
                """);

    assertThat(templates.byName().keySet()).containsExactly("zebra", "ape");
    assertThat(templates.strong().orElseThrow().gvisor()).isTrue();
    Template zebra = templates.byName().get("zebra");
    assertThat(zebra).isNotNull();
    assertThat(zebra.workspace()).isEqualTo(new Template.Workspace.Volume("fast"));
    assertThat(zebra.tolerations().getFirst().getTolerationSeconds()).isEqualTo(5);
    assertThat(zebra.imagePullSecrets()).containsExactly("registry");
    assertThat(zebra.userNamespace()).isFalse();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          templates: {a: {image: x, hostNetwork: true}} | no 'hostNetwork'
          templates: {a: {image: x, labels: {foredeck.dev/role: canary}}} | foredeck.dev/role
          templates: {a: {image: x, workspace: {hostPath: /}}} | no 'hostPath'
          templates: {a: {image: x, workspace: big}} | templates.a.workspace
          templates: {a: {image: x, tolerations: [{taint: x}]}} | no 'taint'
          templates: {a: {}} | templates.a.image
          templates: {A: {image: x}} | a name matches
          templates: {} | there is none
          templates: {a: {image: x, userNamespace: perhaps}} | true or false
          """)
  void refusesAnythingElseByName(String yaml, String said) {
    assertThatIllegalArgumentException()
        .isThrownBy(() -> Templates.parse(HEAD + yaml))
        .withMessageContaining(said);
  }
}
