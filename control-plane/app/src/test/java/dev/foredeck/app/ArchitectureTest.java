package dev.foredeck.app;

import static com.tngtech.archunit.base.DescribedPredicate.alwaysTrue;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// The arrows of ARCHITECTURE.md, seen from the one module that has everything on its classpath.
class ArchitectureTest {
  private static JavaClasses foredeck;

  @BeforeAll
  static void load() {
    foredeck =
        new ClassFileImporter()
            .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
            .importPackages("dev.foredeck");
  }

  @Test
  void theEdgeSeesNoDriverNoStoreAndNoGateway() {
    noClasses()
        .that()
        .resideInAPackage("dev.foredeck.server..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage(
            "dev.foredeck.store..", "dev.foredeck.driver..", "dev.foredeck.egress..")
        .because("a door decodes and encodes; what it asks for goes through core")
        .check(foredeck);
  }

  @Test
  void coreSeesOnlyTheProtocolAndThePolicyEngineOfOurs() {
    classes()
        .that()
        .resideInAPackage("dev.foredeck.core..")
        .should()
        .onlyDependOnClassesThat()
        .resideInAnyPackage(
            "java..",
            "javax.crypto..",
            "javax.net.ssl..",
            "org.slf4j..",
            "org.jspecify..",
            "com.fasterxml.jackson..",
            "dev.foredeck.core..",
            "dev.foredeck.protocol..",
            "dev.foredeck.policy..")
        .check(foredeck);
  }

  @Test
  void onlyTheAppKnowsConcreteParts() {
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.app..", "dev.foredeck.driver..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("dev.foredeck.driver..")
        .check(foredeck);
    slices()
        .matching("dev.foredeck.driver.(*)..")
        .should()
        .notDependOnEachOther()
        .ignoreDependency(alwaysTrue(), resideInAPackage("dev.foredeck.driver.host.."))
        .because("no driver knows another one's backend")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.app..", "dev.foredeck.store..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("dev.foredeck.store..")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.app..", "dev.foredeck.egress..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("dev.foredeck.egress..")
        .check(foredeck);
  }

  @Test
  void eachLibraryHasOneHome() {
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.server..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("io.vertx..")
        .because("Vert.x is the edge, not the architecture")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.app..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("io.micrometer..", "io.prometheus..")
        .because("parts show what they count; only the app knows who reads it")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.store..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("org.jooq..", "org.flywaydb..", "java.sql..", "com.zaxxer..")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.policy..")
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("dev.cel..", "org.snakeyaml..")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.driver.docker..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("com.github.dockerjava..")
        .check(foredeck);
    noClasses()
        .that()
        .resideOutsideOfPackages("dev.foredeck.driver.kubernetes..")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("io.fabric8..")
        .check(foredeck);
  }
}
