package dev.foredeck.core;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import java.time.Clock;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import org.junit.jupiter.api.Test;

/// What core may know. Arrows point inward: core sees the protocol and the policy engine, and no
/// framework.
final class ArchitectureTest {
  private static final JavaClasses CORE =
      new ClassFileImporter()
          .importUrl(Operation.class.getProtectionDomain().getCodeSource().getLocation());

  @Test
  void coreKnowsNoFrameworkAndNothingAboveIt() {
    classes()
        .that()
        .resideInAPackage("dev.foredeck.core..")
        .should()
        .onlyDependOnClassesThat()
        .resideInAnyPackage(
            "java..",
            "javax.crypto..",
            "javax.net.ssl..",
            "dev.foredeck.core..",
            "dev.foredeck.protocol..",
            "dev.foredeck.policy..",
            "com.fasterxml.jackson..",
            "org.slf4j..",
            "org.jspecify.annotations..")
        .because("a driver, a store or a door can be exchanged without touching core")
        .check(CORE);
  }

  @Test
  void portsKnowNoneOfTheirUsers() {
    noClasses()
        .that()
        .resideInAnyPackage("..core.driver..", "..core.egress..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("..core.sandbox..", "..core.gate..", "..core.feed..", "..core.store..")
        .because("a driver reports what its backend says and nothing else")
        .check(CORE);
  }

  @Test
  void theGateAloneReachesAgents() {
    noClasses()
        .that()
        .resideOutsideOfPackages("..core.gate..")
        .should()
        .callMethod(
            dev.foredeck.core.driver.Driver.class,
            "connect",
            Id.class,
            String.class,
            java.time.Duration.class)
        .because("the gate is the only code that can reach a sandbox's agent")
        .check(CORE);
  }

  @Test
  void nothingStartsAProcess() {
    noClasses()
        .should()
        .dependOnClassesThat()
        .areAssignableTo(ProcessBuilder.class)
        .orShould()
        .dependOnClassesThat()
        .areAssignableTo(Runtime.class)
        .because("drivers do, and only they")
        .check(CORE);
  }

  @Test
  void timeAndRandomnessAreParameters() {
    noClasses()
        .should()
        .callMethod(System.class, "currentTimeMillis")
        .orShould()
        .callMethod(Instant.class, "now")
        .orShould()
        .callMethod(Clock.class, "systemUTC")
        .orShould()
        .callMethod(Math.class, "random")
        .orShould()
        .dependOnClassesThat()
        .areAssignableTo(ThreadLocalRandom.class)
        .because("a seed replays a run")
        .check(CORE);
  }

  @Test
  void blockingCodeIsPlain() {
    noClasses()
        .should()
        .dependOnClassesThat()
        .areAssignableTo(CompletableFuture.class)
        .because("a virtual thread blocks")
        .check(CORE);
  }

  @Test
  void namesSayWhatThingsAre() {
    noClasses()
        .should()
        .haveSimpleNameEndingWith("Manager")
        .orShould()
        .haveSimpleNameEndingWith("Helper")
        .orShould()
        .haveSimpleNameEndingWith("Util")
        .orShould()
        .haveSimpleNameEndingWith("Utils")
        .orShould()
        .haveSimpleNameEndingWith("Impl")
        .orShould()
        .haveSimpleNameEndingWith("Base")
        .orShould()
        .haveSimpleNameEndingWith("Data")
        .orShould()
        .haveSimpleNameEndingWith("Info")
        .because("these words say nothing; FileInfo of the protocol is older than the rule")
        .check(CORE);
  }
}
